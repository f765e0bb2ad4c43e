"""What a running job keeps: its checkpoints and its files. Every write says which attempt it belongs to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.errors import JobLost
from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.postgres.events import outbox
from storage.records.events.events import SampleReady
from storage.records.jobs.jobs import Checkpoint, JobFile, JobFileRole

SQL = load_statements(__file__)


def put_checkpoint(job_id: UUID, attempt: int, step: int, sha256: str, size: int) -> Script[Checkpoint]:
    """Record a checkpoint whose bytes are stored. Raises JobLost."""
    parameters = {"job_id": job_id, "attempt": attempt, "step": step, "sha256": sha256, "size": size}
    row = yield from maybe(SQL["put_checkpoint"], parameters, Checkpoint)
    if row is None:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; its checkpoint was not recorded.")
    return row


def checkpoints(job_id: UUID) -> Query[list[Checkpoint]]:
    """A job's checkpoints, newest first."""
    return many(SQL["checkpoints"], {"job_id": job_id}, Checkpoint)


def prune_checkpoints(job_id: UUID, keep: int, every: int = 0) -> Query[list[str]]:
    """Forget all but the newest `keep` checkpoints and those whose step is a multiple of `every` (0: none); returns the
    hashes whose bytes may now be orphans."""
    return column(SQL["prune_checkpoints"], {"job_id": job_id, "keep": keep, "every": every}, str)


def drop_damaged(sha256: str) -> Query[list[int]]:
    """Forget a checkpoint that did not verify in every job that names it; each goes on from the newest one before it
    that any of them has."""
    return column(SQL["drop_damaged"], {"sha256": sha256}, int)


def inherit_checkpoint(job_id: UUID, retry_of: UUID, first: int, last: int) -> Query[list[int]]:
    """Let a retry begin at the newest checkpoint, of a step from `first` to `last`, of the job that it retries; returns
    its step, if there is one."""
    parameters = {"job_id": job_id, "retry_of": retry_of, "first": first, "last": last}
    return column(SQL["inherit_checkpoint"], parameters, int)


def put_file(
    job_id: UUID,
    attempt: int,
    *,
    name: str,
    role: JobFileRole,
    sha256: str,
    size: int,
    media_type: str,
    step: int | None = None,
    details: Mapping[str, object] | None = None,
) -> Script[JobFile]:
    """Record a file whose bytes are stored; a sample is also announced. Raises JobLost."""
    parameters: dict[str, Any] = {
        "job_id": job_id,
        "attempt": attempt,
        "name": name,
        "role": role,
        "sha256": sha256,
        "size": size,
        "media_type": media_type,
        "step": step,
        "details": Jsonb(dict(details or {})),
    }
    row = yield from maybe(SQL["put_file"], parameters, JobFile)
    if row is None:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; '{name}' was not recorded.")
    if role is JobFileRole.SAMPLE:
        yield from outbox.append(SampleReady(job_id=job_id, name=name, step=step or 0))
    return row


def forget_others(job_id: UUID, attempt: int, role: JobFileRole, kept: str) -> Query[list[str]]:
    """Forget all files of a role but one, which has what they had; returns their names. A lost attempt forgets none."""
    return column(SQL["forget_others"], {"job_id": job_id, "attempt": attempt, "role": role, "kept": kept}, str)


def delete_all(job_id: UUID) -> Query[list[str]]:
    """Forget everything that a job made, and its checkpoints; returns the files' names. Their bytes are swept."""
    return column(SQL["delete_all"], {"job_id": job_id}, str)


def files(job_id: UUID) -> Query[list[JobFile]]:
    """Everything a job made, oldest first."""
    return many(SQL["files"], {"job_id": job_id}, JobFile)


def file(job_id: UUID, name: str) -> Query[JobFile]:
    """One file of a job. Reading raises NotFound."""
    return one(SQL["file"], {"job_id": job_id, "name": name}, JobFile, f"Job {job_id} has no file '{name}'.")
