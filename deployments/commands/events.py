"""darkroom events: committed facts whose effect failed too often, on the database itself."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from storage.postgres import outbox
from storage.settings import load_settings

app = typer.Typer(
    help="Events whose effect failed ten times and was set aside.", no_args_is_help=True, add_completion=False
)

Ids = Annotated[list[int], typer.Argument(metavar="EVENT...", help="Ids from `darkroom events list`.")]


@app.command("list")
def list_set_aside() -> None:
    """List events that were set aside, the oldest first."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(outbox.set_aside())
    rows = [
        (one.id, one.kind, one.subject, f"{one.set_aside_at:%Y-%m-%d %H:%M}", one.failures, one.last_error)
        for one in found
    ]
    echo_table(("event", "kind", "about", "set aside (UTC)", "tries", "error"), rows)


@app.command()
def replay(events: Ids) -> None:
    """Try them again, ten times each, once their cause is mended. Later events of their subjects went on meanwhile."""
    with operator_stores(load_settings()) as stores:
        for event in events:
            stores.database.run(lambda event=event: outbox.replay(event))
            typer.echo(f"event {event} is due again")


@app.command()
def discard(events: Ids) -> None:
    """Give them up for good: their effect never happens."""
    with operator_stores(load_settings()) as stores:
        for event in events:
            stores.database.run(lambda event=event: outbox.discard(event))
            typer.echo(f"event {event} is given up")
