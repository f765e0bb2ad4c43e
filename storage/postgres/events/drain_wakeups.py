"""Runs of flows that empty a queue have numbers, which their keys in Prefect are made of."""

from __future__ import annotations

from storage.postgres.connection import Query, column, load_statements

SQL = load_statements(__file__)


def advance(flow: str) -> Query[list[int]]:
    """The run of the present number has begun, or is dead: the next has another."""
    return column(SQL["advance"], {"flow": flow}, int)
