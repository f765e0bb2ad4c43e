"""What is known of the backends: what they can do, whether they respond, how much they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, column, load_statements, many, one
from storage.records.generation.circuits import BackendFault, BackendRow

SQL = load_statements(__file__)


def looked(name: str, version: str, capabilities: Mapping[str, Any]) -> Query[BackendRow]:
    """A backend responded and said what it is. Its failures stay: only what it draws ends them."""
    parameters = {"name": name, "version": version, "capabilities": Jsonb(dict(capabilities))}
    return one(SQL["looked"], parameters, BackendRow, "the backend")


def failed(name: str, reason: BackendFault) -> Query[BackendRow]:
    """A backend did not respond, or broke a drawing: one failure in a row more."""
    return one(SQL["failed"], {"name": name, "reason": reason}, BackendRow, "the backend")


def succeeded(name: str) -> Query[list[BackendRow]]:
    """A backend has drawn something, so its circuit closes."""
    return many(SQL["succeeded"], {"name": name}, BackendRow)


def drawing(name: str, steps: int) -> Query[BackendRow]:
    """How many steps a backend draws now."""
    return one(SQL["drawing"], {"name": name, "drawing": steps}, BackendRow, "the backend")


def list_all() -> Query[list[BackendRow]]:
    """Every backend that a run has looked at, by name."""
    return many(SQL["list"], {}, BackendRow)


def forget_others(names: Sequence[str]) -> Query[list[str]]:
    """Forget backends that the settings name no more; returns them."""
    return column(SQL["forget_others"], {"names": list(names)}, str)
