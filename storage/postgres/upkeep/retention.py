"""What is old in Postgres, deleted in small batches. What is old is decided by Postgres' clock alone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from storage.postgres.connection import Query, Script, column, count, load_statements
from storage.postgres.jobs import sampled_sets

SQL = load_statements(__file__)

BATCHES: Sequence[str] = (
    "outbox",
    "idempotency_keys",
    "sort_keys",
    "search_windows",
    "search_vectors",
    "activity_keys",
    "activity_rejected",
    "activity_batches",
    "base_models",
    "job_checkpoints",
    "job_stages",
    "job_files",
    "source_pictures",
    "alerts",
    "backfills",
)
"""Tables that `delete_batch` knows."""


def now() -> Query[datetime]:
    """The time by Postgres' clock."""
    return Query(SQL["now"], {}, lambda rows: rows[0]["moment"])


def delete_batch(table: str, before: datetime, limit: int) -> Script[int]:
    """Delete at most `limit` rows of a table that were old at `before`; returns how many went.

    What was deleted is marked in the same transaction: nobody takes a row that retention deleted for one that was lost.
    Raises ValueError for a table that is none of BATCHES.
    """
    if table not in BATCHES:
        raise ValueError(f"Rows of {table} are not deleted by their age. Those that are: {', '.join(BATCHES)}.")
    yield from column(SQL["mark"], {"rule": table, "before": before}, str)
    [gone] = yield from column(SQL[table], {"before": before, "limit": limit}, int)
    yield from column(SQL["count"], {"rule": table, "gone": gone}, int)
    return gone


def old_sampled_sets(before: datetime, limit: int) -> Query[list[str]]:
    """The recipes of sets that nobody has asked for since `before`."""
    return column(SQL["old_sampled_sets"], {"before": before, "limit": limit}, str)


def drop_sampled_set(recipe_hash: str, before: datetime) -> Script[int]:
    """Delete a set and its images unless it was asked for meanwhile; returns how many images. Their bytes are swept."""
    found = yield from sampled_sets.locked(recipe_hash, before)
    if not found:
        return 0
    images = yield from count(SQL["drop_sampled_images"], {"recipe_hash": recipe_hash})
    yield from count(SQL["drop_sampled_set"], {"recipe_hash": recipe_hash, "before": before})
    return images


def tables() -> Query[list[str]]:
    """The tables of our schema, by name."""
    return column(SQL["tables"], {}, str)
