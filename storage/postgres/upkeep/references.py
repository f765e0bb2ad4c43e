"""Which bytes the rows name: the blob store's other half."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from storage.postgres.connection import Query, Rows, column, load_statements

SQL = load_statements(__file__)

BEHIND = "g"
"""Stands behind every digit of a hash."""


def referenced(hashes: Sequence[str]) -> Query[list[str]]:
    """Those of `hashes` that some row names."""
    return column(SQL["referenced"], {"hashes": list(hashes)}, str)


def naming(sha256: str, limit: int = 3) -> Query[list[str]]:
    """The first `limit` rows that name a hash, each in words."""
    return column(SQL["naming"], {"hash": sha256, "limit": limit}, str)


def pages(
    ask: Callable[[Query[dict[str, int]]], dict[str, int]], low: str, high: str, limit: int
) -> Iterator[tuple[str, int]]:
    """Every hash between two (neither included) that some row names, in order, with its size in bytes: `limit` of them
    at a time, each time by `ask`."""
    while page := ask(_page(low, high, limit)):
        yield from page.items()
        low = max(page)


def _page(low: str, high: str, limit: int) -> Query[dict[str, int]]:
    def read(rows: Rows) -> dict[str, int]:
        return {row["sha256"]: row["size"] for row in rows}

    return Query(SQL["page"], {"low": low, "high": high, "limit": limit}, read)
