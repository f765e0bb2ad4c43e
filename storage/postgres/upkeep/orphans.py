"""Bytes that no row names, and how long they have waited. Whoever deletes bytes holds their row while it does."""

from __future__ import annotations

from collections.abc import Sequence

from storage.postgres.connection import Query, column, count, load_statements
from storage.postgres.locks import BLOB_SWEEP, lock_number

SQL = load_statements(__file__)

STEPS = 4
"""The grace passes in at least so many sweeps: between two of them at most this part of it counts."""


def renew(sha256: str) -> Query[int]:
    """These bytes were put again: their wait starts over. Returns when nobody is deleting them."""
    return count(SQL["renew"], {"sha256": sha256})


def note(hashes: Sequence[str], grace_seconds: float) -> Query[int]:
    """A sweep saw that no row names these."""
    return count(SQL["note"], {"hashes": sorted(hashes), "longest": grace_seconds / STEPS})


def forget(hashes: Sequence[str]) -> Query[int]:
    """These are named again, or deleted."""
    return count(SQL["forget"], {"hashes": list(hashes)})


def forget_gone(low: str, high: str, present: Sequence[str]) -> Query[int]:
    """Of the orphans between two hashes only those in `present` are still in the blob store."""
    return count(SQL["forget_gone"], {"low": low, "high": high, "hashes": list(present)})


def due(wait_seconds: float, grace_seconds: float, after: str = "", limit: int = 1000) -> Query[list[str]]:
    """Hashes behind `after` whose bytes have waited so long, in order."""
    return column(SQL["due"], {**_waited(wait_seconds, grace_seconds), "after": after, "limit": limit}, str)


def wait_for_the_blob_store() -> Query[int]:
    """Have this transaction hold what it holds however long the blob store takes."""
    return Query(SQL["wait_for_the_blob_store"], {}, len)


def hold_due(sha256: str, wait_seconds: float, grace_seconds: float) -> Query[int]:
    """Hold one of them until the transaction ends; 0 when it was wanted again meanwhile."""
    return count(SQL["hold_due"], {**_waited(wait_seconds, grace_seconds), "sha256": sha256})


def hold(sha256: str) -> Query[int]:
    """Hold bytes that nobody else can have put until the transaction ends."""
    return count(SQL["hold"], {"sha256": sha256})


def lock_sweep_out() -> Query[bool]:
    """Keep the sweep and the backup from beginning until the transaction ends; false when one is at work."""
    return Query(SQL["sweep_locked_out"], {"lock": lock_number(BLOB_SWEEP)}, lambda rows: bool(rows[0]["free"]))


def _waited(wait_seconds: float, grace_seconds: float) -> dict[str, object]:
    return {"wait": wait_seconds, "longest": grace_seconds / STEPS}
