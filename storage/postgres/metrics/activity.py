"""Activity: acts from outside, in batches and once per key; acts of our own, in the transaction they happen in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from storage.postgres.connection import Query, Script, column, count, load_statements, many, one
from storage.postgres.policy.policy import viewing, with_clauses
from storage.records.metrics.activity import EARLIEST, OLDEST, Act, Batch, Counted, Metric, Refusal, RejectedAct, key_of
from storage.records.policy.viewers import ANYBODY, Viewer

SQL = with_clauses(load_statements(__file__))


def ingest(
    source: str, acts: Sequence[Act], *, viewer: Viewer | None = None, now: datetime | None = None
) -> Script[Batch]:
    """Count acts, each once for its source's key, and reject what cannot be counted. Repeating it counts nothing.

    `viewer`: whose call it is, who counts only acts about what they see; without one all was checked before.
    `now` is what their times are judged by.
    """
    [batch_id] = yield from column(
        SQL["open_batch"], {"source": source, "account_id": viewer and viewer.account_id}, int
    )
    rows = [
        (
            batch_id,
            n,
            key_of(source, act.key),
            act.key,
            act.entity,
            act.entity_id,
            act.metric,
            act.amount,
            act.occurred_at,
        )
        for n, act in enumerate(acts)
    ]
    # By COPY into a table, then judged by statements over all of them: the cost of a call does not grow by a round trip
    # for each act.
    yield from Query(SQL["stage"], {}, len, rows)
    parameters = {"batch_id": batch_id, "now": now or datetime.now(UTC), "oldest": OLDEST, "earliest": EARLIEST}
    # Only days that acts can be counted on: a sender's wrong clock must not make tables.
    yield from Query(SQL["make_days"], parameters, len)
    judging = {**parameters, **viewing(viewer or ANYBODY), "checked": viewer is None}
    refusals = yield from many(SQL["rejected"], judging, Refusal)
    [accepted] = yield from column(SQL["count_new"], parameters, int)
    refusals += yield from many(SQL["contradictions"], parameters, Refusal)
    counts = {"batch_id": batch_id, "accepted": accepted, "rejected": len(refusals)}
    batch = yield from one(SQL["close_batch"], counts, Batch, "the batch")
    return msgspec.structs.replace(batch, refusals=tuple(refusals))


def count_one(source: str, entity: Counted, entity_id: int, metric: Metric, amount: int = 1) -> Script[None]:
    """Count an act with the caller's transaction; -1 takes one back."""
    yield from Query(SQL["make_today"], {}, len)
    parameters = {"source": source, "entity": entity, "entity_id": entity_id, "metric": metric, "amount": amount}
    yield from Query(SQL["count_one"], parameters, len)


def rejected(*, account_id: UUID | None = None, before: int | None = None, limit: int = 50) -> Query[list[RejectedAct]]:
    """What was not counted of an account's calls, or of all, newest first, before an id."""
    return many(SQL["list_rejected"], {"account_id": account_id, "before": before, "limit": limit}, RejectedAct)


def make_days_ahead() -> Query[int]:
    """The tables of the days that acts can fall on soon."""
    return count(SQL["make_days_ahead"], {})


def drop_days(keep_days: int) -> Query[list[int]]:
    """Drop the days whose activity is kept no more; returns how many, as the only number of a list. An empty list while
    acts of those days wait to be summed: none is dropped.

    By itself: it keeps everybody from the tables until it is committed.
    """
    return column(SQL["drop_old_days"], {"days": keep_days}, int)
