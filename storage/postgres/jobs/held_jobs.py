"""The jobs that one process holds beside each other: their heartbeats, and which of them goes on alone at first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from uuid import UUID

import msgspec
from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, Script, load_statements, many
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import TERMINAL, Job, JobState, Progress

SQL = load_statements(__file__)


class Heartbeat(msgspec.Struct, frozen=True):
    """That an attempt of a job is alive, and how far it is."""

    id: UUID
    attempt: int
    progress: Progress


def heartbeats(beats: Sequence[Heartbeat]) -> Script[dict[UUID, Job]]:
    """Say that these attempts are alive; returns the rows of those that still are their jobs' attempts.

    A row that somebody holds has no heartbeat this time, and holds up no other one.
    """
    attempts = {beat.id: beat.attempt for beat in beats}
    yield from many(SQL["heartbeats"], {"beats": Jsonb(msgspec.to_builtins(beats))}, Job)
    rows = yield from many(SQL["rows"], {"job_ids": list(attempts)}, Job)
    gone = {*TERMINAL, JobState.SUBMITTED}
    return {row.id: row for row in rows if row.attempt == attempts[row.id] and row.state not in gone}


def die(job_id: UUID, attempt: int, max_silent_attempts: int) -> Script[Job]:
    """Give a job whose thread ended by what is no error another attempt, as after a silent one. Raises JobLost."""
    row = yield from jobs.get(job_id)
    if row.state is JobState.CANCELLING:
        return (yield from jobs.end_cancelling(job_id, attempt))
    return (yield from jobs.replace_dead_flow_run(msgspec.structs.replace(row, attempt=attempt), max_silent_attempts))


def has_to_wait(job_id: UUID, beside: Mapping[UUID, datetime]) -> Query[bool]:
    """Whether a submitted job is not to begin yet in the process that holds the jobs `beside`, each since a time.

    A job whose attempts ended with their process may be what ended it. It begins when all others have stored a picture
    since then, and until it has stored one none begins: one that ends the process again is the only one that counts.
    """
    parameters = {"job_id": job_id, "held": list(beside), "since": list(beside.values())}
    return Query(SQL["has_to_wait"], parameters, lambda rows: bool(rows[0]["waits"]))
