"""Advisory locks of Postgres, by name."""

from __future__ import annotations

import hashlib

import psycopg
from psycopg.rows import DictRow

BLOB_SWEEP = "blob-sweep"
"""Held by whoever deletes bytes that no row names, or lists the blobs for a backup: one of them at a time."""

RECONCILE = "reconcile"
"""Held by the run of `reconcile` that is at work: a second one ends at once."""


def lock_number(name: str) -> int:
    """The advisory lock number (signed 64 bits) of a name."""
    # Not hash(): Python salts it, so that each process would lock another number.
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


def try_lock(connection: psycopg.Connection[DictRow], name: str) -> bool:
    """Take the session's advisory lock called `name` if it is free; it goes when the connection does."""
    row = connection.execute(
        "select pg_try_advisory_lock(%(number)s) as held", {"number": lock_number(name)}
    ).fetchone()
    return bool(row and row["held"])
