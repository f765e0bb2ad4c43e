"""Which bytes the rows name: the blob store's other half."""

from __future__ import annotations

from collections.abc import Sequence

from storage.postgres.connection import Query, Rows, column, load_statements

SQL = load_statements(__file__)


def referenced(hashes: Sequence[str]) -> Query[list[str]]:
    """Those of `hashes` that some row names."""
    return column(SQL["referenced"], {"hashes": list(hashes)}, str)


def page(low: str, high: str, limit: int) -> Query[dict[str, int]]:
    """The first hashes between two (neither included) that some row names, in order, each with its size in bytes."""

    def read(rows: Rows) -> dict[str, int]:
        return {row["sha256"]: row["size"] for row in rows}

    return Query(SQL["page"], {"low": low, "high": high, "limit": limit}, read)
