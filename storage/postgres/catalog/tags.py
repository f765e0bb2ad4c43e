"""Tags of listed models."""

from __future__ import annotations

import msgspec

from storage.postgres.connection import Query, column, load_statements, many

SQL = load_statements(__file__)


class Tag(msgspec.Struct, frozen=True, kw_only=True):
    """A tag and how many listed models have it."""

    id: int
    name: str
    models: int


def page(query: str | None, *, offset: int, limit: int) -> Query[list[Tag]]:
    """Tags that begin with `query`, the most used first."""
    return many(SQL["page"], {"query": query, "offset": offset, "limit": limit}, Tag)


def total(query: str | None) -> Query[list[int]]:
    """How many tags there are, as the only number of a list."""
    return column(SQL["total"], {"query": query}, int)
