"""What a database needs that has come back from a backup, so that nothing of the time in between is mistaken for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements, one
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import JobState
from storage.records.notifications.channels import OUTWARD

SQL = load_statements(__file__)

JUMP = 1_000_000
"""Every sequence goes on so much higher, or by a tenth of where it stood, whichever is more."""


class DueDeliveries(msgspec.Struct, frozen=True, kw_only=True):
    """Deliveries that wait to be put into a sending or are in one, and sendings that are due."""

    deliveries: int
    sendings: int


@dataclass(frozen=True)
class Reopened:
    """What was changed: sequences with the last number that each may have given out; jobs by what became of them."""

    sequences: dict[str, int]
    again: int
    cancelled: int
    uploads: int
    due: DueDeliveries
    held: list[str]


def nothing() -> Reopened:
    """Nothing was changed yet."""
    return Reopened({}, 0, 0, 0, DueDeliveries(deliveries=0, sendings=0), [])


def leave_home() -> Query[list[str]]:
    """The next migration treats the database as one from another cluster, also in the cluster that it is from."""
    return column(SQL["other_home"], {}, str)


def reopen(*, jump: int = JUMP, hold_notifications: bool = False) -> Script[Reopened]:
    """Move every number on, give unfinished jobs another attempt, forget what is not in a backup.

    hold_notifications: nothing is sent outside the platform until an operator resumes each channel.
    """
    sequences = yield from move_on(jump)
    yield from column(SQL["wake_again"], {"jump": jump}, str)
    yield from _rows("forget_searches", {})
    uploads = yield from column(SQL["forget_uploads"], {}, str)
    again, cancelled = 0, 0
    for job in (yield from jobs.alive()):
        if job.state is JobState.CANCELLING:
            # Its owner had asked to stop, and the process that was to notice is gone.
            yield from jobs.end_cancelling(job.id, job.attempt)
            cancelled += 1
        else:
            # A new attempt, because Prefect would return the old flow run for the key of the old one.
            yield from jobs.start_again(job)
            again += 1
    due = yield from one(SQL["due"], {}, DueDeliveries, "what is due")
    outside = [channel.value for channel in OUTWARD]
    held = (yield from column(SQL["hold"], {"channels": outside}, str)) if hold_notifications else []
    return Reopened(sequences, again, cancelled, len(uploads), due, held)


def move_on(jump: int = JUMP) -> Query[dict[str, int]]:
    """Every sequence of the database goes on above what may have been given out since; returns where each is now."""
    return Query(SQL["move_on"], {"jump": jump}, lambda rows: {row["name"]: row["last"] for row in rows})


def _rows(name: str, parameters: dict[str, Any]) -> Query[list[dict[str, Any]]]:
    return Query(SQL[name], parameters, lambda rows: [dict(row) for row in rows])
