"""darkroom events: committed facts without effect, on the database itself."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from storage.postgres.events import outbox
from storage.postgres.events.outbox import TroubledEvent
from storage.settings import load_settings

app = typer.Typer(
    help="Events that have no effect: given up after ten failures, or waiting.",
    no_args_is_help=True,
    add_completion=False,
)

Ids = Annotated[list[int], typer.Argument(metavar="EVENT...", help="Ids from `darkroom events list`.")]


@app.command("list")
def list_in_trouble() -> None:
    """List events that were given up and those that wait after an error, the oldest first."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(outbox.in_trouble())
    rows = [(one.id, one.kind, one.subject, _state(one), one.failures, one.last_error) for one in found]
    echo_table(("event", "kind", "about", "dead since (UTC)", "failures", "error"), rows)


@app.command()
def replay(events: Ids) -> None:
    """Try them again, ten times each, once their cause is fixed. Later events of their subjects went on meanwhile."""
    with operator_stores(load_settings()) as stores:
        for event in events:
            stores.database.run(lambda event=event: outbox.replay(event))
            typer.echo(f"event {event} is due again")


@app.command()
def discard(events: Ids) -> None:
    """Give them up for good, also those that wait: their effect never happens."""
    with operator_stores(load_settings()) as stores:
        for event in events:
            stores.database.run(lambda event=event: outbox.discard(event))
            typer.echo(f"event {event} is discarded")


def _state(event: TroubledEvent) -> str:
    return "waits" if event.dead_at is None else f"{event.dead_at:%Y-%m-%d %H:%M}"
