"""Pauses: flows that an operator has stopped for a while. Nobody starts one, and what it would do waits."""

from __future__ import annotations

from storage.postgres.connection import Query, Script, column, load_statements, many
from storage.records.metrics.freshness import Pause, Switch

SQL = load_statements(__file__)


def add(flow: str, switch: Switch) -> Query[list[str]]:
    """A flow is paused from now on, unless it is already."""
    return column(SQL["add"], {"flow": flow, "paused_in": switch}, str)


def remove(flow: str) -> Script[bool]:
    """A flow goes on, and the relay looks what waits for it; returns whether it was paused."""
    removed = yield from column(SQL["remove"], {"flow": flow}, str)
    yield from column(SQL["wake"], {"flow": flow}, str)
    return bool(removed)


def is_paused(flow: str) -> Query[bool]:
    """Whether a flow is paused."""
    return Query(SQL["is_paused"], {"flow": flow}, lambda rows: bool(rows[0]["paused"]))


def every() -> Query[list[Pause]]:
    """The flows that are paused."""
    return many(SQL["every"], {}, Pause)
