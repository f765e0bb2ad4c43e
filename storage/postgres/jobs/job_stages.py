"""What the stages of a job have made: kept for its next attempts, and for retries of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from storage.errors import JobLost
from storage.postgres.connection import Query, Script, column, count, load_statements, many, maybe
from storage.records.jobs.jobs import Stage, StageBlob, StageRow

SQL = load_statements(__file__)


def put(
    job_id: UUID,
    attempt: int,
    stage: Stage,
    key: str,
    result: Mapping[str, Any],
    blobs: Sequence[StageBlob],
    *,
    seconds: float,
    peak_bytes: int,
) -> Script[StageRow]:
    """Keep what a stage has made; `blobs` are the bytes that no other row names yet, and are stored. Raises JobLost."""
    hashes = [blob.sha256 for blob in blobs]
    parameters: dict[str, Any] = {
        "job_id": job_id,
        "attempt": attempt,
        "stage": stage,
        "key": key,
        "result": Jsonb(dict(result)),
        "seconds": seconds,
        "peak_bytes": peak_bytes,
        "hashes": hashes,
    }
    row = yield from maybe(SQL["put"], parameters, StageRow)
    if row is None:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; what its stage {stage} made was not recorded.")
    sizes = [blob.size for blob in blobs]
    yield from column(SQL["put_blobs"], {"job_id": job_id, "stage": stage, "hashes": hashes, "sizes": sizes}, str)
    return row


def name_blobs(job_id: UUID, attempt: int, stage: Stage, blobs: Sequence[StageBlob]) -> Script[None]:
    """Name the bytes of a result that is found done, so that they stay until the job publishes them: a job that has
    published names them no more. Raises JobLost."""
    if not (yield from count(SQL["hold"], {"job_id": job_id, "attempt": attempt})):
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; what its stage {stage} made is not its own.")
    hashes, sizes = [blob.sha256 for blob in blobs], [blob.size for blob in blobs]
    yield from column(SQL["put_blobs"], {"job_id": job_id, "stage": stage, "hashes": hashes, "sizes": sizes}, str)


def of_job(job_id: UUID) -> Query[list[StageRow]]:
    """What is kept of a job's stages, in the order in which they ended."""
    return many(SQL["of_job"], {"job_id": job_id}, StageRow)


def inherit(job_id: UUID, retry_of: UUID, but: Collection[str]) -> Script[None]:
    """Let a retry go on behind the stages of the job that it retries, but for those named."""
    parameters = {"job_id": job_id, "retry_of": retry_of, "but": list(but)}
    yield from column(SQL["inherit"], parameters, str)
    yield from column(SQL["inherit_blobs"], parameters, str)


def release_blobs(job_id: UUID) -> Query[list[str]]:
    """Name the bytes of results no more: in the transaction that publishes them."""
    return column(SQL["release_blobs"], {"job_id": job_id}, str)
