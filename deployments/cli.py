"""The command line `darkroom`: this file only says which commands there are."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from deployments.commands import platform
from storage.errors import DarkroomError


class _Commands(TyperGroup):
    """Turns an error that we raised on purpose into its message and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DarkroomError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    name="darkroom",
    help="Darkroom: photos of a subject in, a catalogued model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(platform.up)
app.command()(platform.down)
app.command()(platform.status)

if __name__ == "__main__":
    app()
