"""The command line `darkroom`: this file only says which commands there are.

A command's module is imported when the command is called, so that `darkroom --help` and the shell's completion are
quick. The summaries here are the first lines of the commands' own docstrings; a test keeps them equal.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

from storage.errors import DarkroomError

EXTRAS = {"api": "litestar", "worker": "prefect"}
"""For each extra of pyproject.toml a library that is installed with it alone."""


class ExtraMissing(DarkroomError):
    """The command needs libraries that this environment was made without."""

    code = "extra_missing"


@dataclass(frozen=True)
class CommandPlace:
    """Where a command lives (module:name, a function or a typer app of several), what it does in one line, and the
    extras that it needs."""

    where: str
    summary: str
    extras: tuple[str, ...] = ()


COMMANDS: dict[str, CommandPlace] = {
    "demo": CommandPlace(
        "platform.demo:demo",
        "Show the whole thing: photos in, a fine-tuned model and a picture grid out.",
        extras=("api", "worker"),
    ),
    "up": CommandPlace(
        "platform.platform:up", "Run the whole platform on this machine until Ctrl-C.", extras=("api", "worker")
    ),
    "down": CommandPlace(
        "platform.platform:down", "Stop the platform and leave no process behind.", extras=("worker",)
    ),
    "status": CommandPlace(
        "platform.platform:status",
        "Show each part: state, process, uptime, memory, address. Exits with 1 when something is not healthy.",
        extras=("worker",),
    ),
    "train": CommandPlace(
        "jobs.train:train", "Fine-tune a base model on photos of a subject, and follow it to the catalogued model."
    ),
    "jobs": CommandPlace("jobs.jobs:app", "What was asked for, and how far it is."),
    "models": CommandPlace(
        "catalog.publication:models", "List your models, newest first, also drafts and private ones."
    ),
    "publish": CommandPlace(
        "catalog.publication:publish", "Show a model of yours, a fine-tune for example, to everybody."
    ),
    "generate": CommandPlace("generation.generate:generate", "Draw pictures with models and adapters, and save them."),
    "download": CommandPlace(
        "catalog.download:download", "Bring a model version here. Repeating goes on where it broke off."
    ),
    "import": CommandPlace(
        "catalog.importing:import_folder",
        "Fill the catalogue from a folder of safetensors, reading their metadata. Repeating changes nothing.",
    ),
    "base": CommandPlace("jobs.base:app", "Base models that a fine-tune can start from.", extras=("worker",)),
    "key": CommandPlace("accounts.key:app", "API keys, on this machine's database."),
    "rotate": CommandPlace(
        "upkeep.key_rotation:rotate",
        "Make a new signing or sealing key; the old one is kept beside it. Restart the platform to use it.",
    ),
    "reseal": CommandPlace(
        "upkeep.key_rotation:reseal",
        "Seal all that the previous sealing key sealed under the current one, wherever the two come from.",
    ),
    "notifications": CommandPlace(
        "notifications.notifications:app", "What readers are notified of, and what could not be sent."
    ),
    "events": CommandPlace("events.events:app", "Events that have no effect: given up after ten failures, or waiting."),
    "rebuild": CommandPlace(
        "search.rebuild:rebuild",
        "Rebuild a search index beside the one that is read, then swap them.",
        extras=("worker",),
    ),
    "backfill": CommandPlace(
        "metrics.backfill:backfill",
        "Rebuild days of a flow from what they are made of. Repeating it goes on where it broke off.",
        extras=("worker",),
    ),
    "pause": CommandPlace(
        "upkeep.pause:pause",
        "Start no more runs of a flow until it is resumed; what it would do waits.",
        extras=("worker",),
    ),
    "resume": CommandPlace(
        "upkeep.pause:resume", "Let a paused flow go on, also with what has waited.", extras=("worker",)
    ),
    "sql": CommandPlace("platform.sql:sql", "Ask Darkroom's database with psql.", extras=("worker",)),
    "run": CommandPlace("upkeep.run:run", "Start a scheduled flow now, beside its schedule.", extras=("worker",)),
    "backup": CommandPlace(
        "upkeep.backup:app", "Back the whole platform up while it works; list and verify backups.", extras=("worker",)
    ),
    "restore": CommandPlace(
        "upkeep.restore:restore",
        "Bring a platform back from a backup, into a data folder that is empty or not there.",
        extras=("worker",),
    ),
    "check": CommandPlace(
        "upkeep.check:check",
        "Compare the stores with each other: every row has its bytes, every job its facts, every index its rows.",
        extras=("worker",),
    ),
}


def missing_extras(name: str) -> list[str]:
    """The extras that a command needs and that are not installed."""
    return [extra for extra in COMMANDS[name].extras if find_spec(EXTRAS[extra]) is None]


def load(name: str) -> TyperCommand | TyperGroup:
    """The command itself, imported now. Raises ExtraMissing."""
    if missing := missing_extras(name):
        extras = ",".join(missing)
        raise ExtraMissing(
            f"darkroom {name} needs libraries that are not installed here. Install darkroom[{extras}]: `make install` "
            f"in a clone, else pip install 'darkroom[{extras}]'."
        )
    module, attribute = COMMANDS[name].where.split(":")
    target: object = getattr(import_module(f"deployments.commands.{module}"), attribute)
    if not isinstance(target, typer.Typer):
        function = cast(Callable[..., None], target)
        target = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        target.command(name)(function)
    command = cast("TyperCommand | TyperGroup", get_command(target))
    command.name = name
    return command


class _Commands(TyperGroup):
    """Imports a command when it is called; turns an error that we raised on purpose into its message and status 1."""

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        if ctx.resilient_parsing and name and missing_extras(name):
            # The shell's completion shows no errors, and None would have it offer this group's commands once more.
            return name, TyperCommand(name), rest
        return name, load(name) if name else None, rest

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DarkroomError as error:
            typer.secho(f"error: {error}", err=True, fg="red")
            raise typer.Exit(1) from error
        except OSError as error:
            # EPIPE is click's: it ends quietly when the reader of a pipe has left. Without a file it is no mistake of
            # the user's.
            if error.errno == errno.EPIPE or error.filename is None:
                raise
            typer.secho(f"error: {error.filename}: {error.strerror}", err=True, fg="red")
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=_Commands,
    name="darkroom",
    help="Darkroom: photos of a subject in, a catalogued model out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _listed() -> None:
    """Stands for a command in the list of commands; never called."""


for _name, _place in COMMANDS.items():
    app.command(_name, help=_place.summary)(_listed)

if __name__ == "__main__":
    app()
