"""darkroom pause, darkroom resume: the switch of a flow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from deployments.commands.operator import operator_stores
from deployments.local.fingerprint import PREFECT_FILE, stanzas
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable, open_prefect
from flows.upkeep import pausing
from storage.errors import NotFound
from storage.postgres.connection import Database
from storage.settings import load_settings

T = TypeVar("T")

Flow = Annotated[str, typer.Argument(metavar="FLOW", help="Its name in prefect.yaml, such as roll-up-metrics.")]


def pause(flow: Flow) -> None:
    """Start no more runs of a flow until it is resumed; what it would do waits."""
    try:
        _with_both(flow, pausing.pause)
    except PrefectUnavailable as unavailable:
        typer.echo(f"{unavailable} The relay reports it when it is back.")
    typer.echo(f"{flow} is paused; a run that has begun ends by itself. Go on with: darkroom resume {flow}")


def resume(flow: Flow) -> None:
    """Let a paused flow go on, also with what has waited."""
    was = _with_both(flow, pausing.resume)
    typer.echo(f"{flow} goes on" if was else f"{flow} was not paused")


def _with_both(flow: str, change: Callable[[Database, Orchestrator, str], T]) -> T:
    names = sorted(stanza["name"] for stanza in stanzas(PREFECT_FILE))
    if flow not in names:
        raise NotFound(f"No flow '{flow}'. There are: {', '.join(names)}")
    settings = load_settings()
    with operator_stores(settings) as stores, open_prefect(settings.prefect) as prefect:
        return change(stores.database, Orchestrator(prefect), flow)
