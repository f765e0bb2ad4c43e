"""What the relay's duties did last, as the relay itself notes it: it has no port of its own."""

from __future__ import annotations

from collections.abc import Mapping

from storage.postgres.connection import Query, column, load_statements, many
from storage.records.events.duties import DutyReport

SQL = load_statements(__file__)


def begin(paces: Mapping[str, float]) -> Query[list[str]]:
    """A relay begins with these duties; a pace is how many seconds lie between two iterations."""
    return column(SQL["begin"], {"names": list(paces), "paces": list(paces.values())}, str)


def succeeded(name: str) -> Query[list[str]]:
    """A duty has done its work just now."""
    return column(SQL["succeeded"], {"name": name}, str)


def failed(name: str, error: str) -> Query[list[int]]:
    """A duty's iteration failed; returns how many have in a row."""
    return column(SQL["failed"], {"name": name, "error": error[:2000]}, int)


def every() -> Query[list[DutyReport]]:
    """Every duty, by name; none while no relay of this version has ever run."""
    return many(SQL["every"], {}, DutyReport)
