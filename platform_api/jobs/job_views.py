"""Jobs as clients see them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from urllib.parse import quote, urlsplit
from uuid import UUID

import msgspec
from litestar import Response
from msgspec import Meta

from platform_api.http.links import API
from platform_api.http.pages import camelised, signed_image
from storage.errors import NotFound
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs
from storage.postgres.jobs.paces import paces
from storage.records.jobs.costs.paces import pace_on
from storage.records.jobs.jobs import Job, JobFile, JobFileRole, JobKind, JobState
from storage.records.jobs.training import TrainingJobRequest
from storage.settings import Settings

_ID = "6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"

NOUNS = {JobKind.TRAINING: "training-jobs", JobKind.GENERATION: "generations"}
"""Where jobs of each kind live below /api/v1."""


class JobLinks(msgspec.Struct, frozen=True, kw_only=True, rename={"self_": "self"}):
    """Where the rest of a job is."""

    self_: Annotated[str, Meta(examples=[f"{API}/training-jobs/{_ID}"])]
    events: str
    samples: str
    files: str
    cancel: str
    retry: str


class SubmittedJob(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A committed job. It depends on nothing that changes: a repeated request gets the very same bytes."""

    id: Annotated[UUID, Meta(examples=[_ID])]
    kind: JobKind
    state: JobState
    submitted_at: datetime
    links: JobLinks


class JobProgress(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How far a job is: `step` of `total` in a named phase."""

    phase: Annotated[str, Meta(examples=["fit"])]
    step: int
    total: int
    loss: float | None


class JobFailure(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Why a job failed: a stable word, and what to do."""

    code: Annotated[str, Meta(examples=["out_of_memory"])]
    reason: str


class JobSummary(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A job in a list."""

    id: Annotated[UUID, Meta(examples=[_ID])]
    kind: JobKind
    state: JobState
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    progress: JobProgress | None
    failure: JobFailure | None
    retry_of: UUID | None
    data_set_id: UUID | None
    model_version_id: int | None
    links: JobLinks


class JobDetail(JobSummary, frozen=True, kw_only=True, rename="camel"):
    """A job with everything there is to know of it."""

    request: dict[str, Any]
    queue_position: Annotated[int | None, Meta(description="Jobs that go before this one, while it is submitted.")]
    estimated_seconds: Annotated[
        float | None, Meta(description="Rough time left, from the pace of recent jobs; null before the first.")
    ]
    attempt: Annotated[int, Meta(ge=1, description="The attempt, counted from 1: more than 1 after a crash.")]
    tracking_run_url: str | None
    flow_run_url: str | None


class JobFileView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something a job made."""

    name: Annotated[str, Meta(examples=["grid.png"])]
    role: JobFileRole
    media_type: str
    size: int
    sha256: str
    step: int | None
    details: dict[str, Any]
    created_at: datetime
    url: Annotated[str, Meta(description="The bytes, with a key.")]
    image_url: Annotated[str | None, Meta(description="Images only: signed, without a key, until it expires.")]


class JobFiles(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Everything of its sort that a job made, oldest first."""

    items: list[JobFileView]


def links(kind: JobKind, job_id: UUID) -> JobLinks:
    """Where the rest of a job is."""
    here = f"{API}/{NOUNS[kind]}/{job_id}"
    parts = ("events", "samples", "files", "cancel", "retry")
    return JobLinks(self_=here, **{part: f"{here}/{part}" for part in parts})


def submitted(job: Job) -> Response[SubmittedJob]:
    """The response to a request for work: 202 and where to follow it."""
    where = links(job.kind, job.id)
    # The state that it had, not the one it has: a repeat after days still responds with the same bytes.
    content = SubmittedJob(
        id=job.id, kind=job.kind, state=JobState.SUBMITTED, submitted_at=job.submitted_at, links=where
    )
    return Response(content, status_code=202, headers={"Location": where.self_})


def summary(job: Job) -> JobSummary:
    """A job as a list shows it."""
    return JobSummary(**summary_fields(job))


def summary_fields(job: Job) -> dict[str, Any]:
    """The fields of a summary."""
    progress, failure = None, None
    if job.progress is not None:
        progress = JobProgress(
            phase=job.progress.phase, step=job.progress.step, total=job.progress.total, loss=job.progress.loss
        )
    if job.failure_code is not None:
        failure = JobFailure(code=job.failure_code, reason=job.failure_reason or "")
    return {
        "id": job.id,
        "kind": job.kind,
        "state": job.state,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "progress": progress,
        "failure": failure,
        "retry_of": job.retry_of,
        "data_set_id": job.data_set_id,
        "model_version_id": job.model_version_id,
        "links": links(job.kind, job.id),
    }


def job_of_kind(job_id: UUID, account_id: UUID, kind: JobKind) -> Script[Job]:
    """An account's job of one kind. Another's, and one of the other kind, is as good as none: NotFound."""
    job = yield from jobs.get_for_account(job_id, account_id)
    if job.kind is not kind:
        raise NotFound(f"No job {job_id} among the {NOUNS[kind]}.")
    return job


def read_training(job_id: UUID, account_id: UUID) -> Script[tuple[Job, int | None, float | None]]:
    """The job, how many go before it, and roughly how many seconds are left. Raises NotFound."""
    job = yield from job_of_kind(job_id, account_id, JobKind.TRAINING)
    ahead = (yield from jobs.queue_position(job)) if job.state is JobState.SUBMITTED else None
    if job.ended_at is not None:
        return job, ahead, None
    request = msgspec.convert(job.request, TrainingJobRequest)
    recipe = request.recipe
    pace = pace_on((yield from paces(request.base_model, recipe)), recipe.device)
    if pace is None:
        return job, ahead, None
    # Assumes that the jobs ahead are as long as this one.
    waiting = (ahead or 0) * pace.seconds(recipe)
    return job, ahead, round(waiting + pace.seconds_left(recipe, job.progress), 1)


def detail(job: Job, ahead: int | None, seconds: float | None, settings: Settings) -> JobDetail:
    """A job with everything there is to know of it."""
    return JobDetail(**detail_fields(job, camelised(job.request), ahead, seconds, settings))


def detail_fields(
    job: Job, request: dict[str, Any], ahead: int | None, seconds: float | None, settings: Settings
) -> dict[str, Any]:
    """The fields of a detail. request: what was asked for, in the names of the API."""
    return {
        **summary_fields(job),
        "request": request,
        "queue_position": ahead,
        "estimated_seconds": seconds,
        "attempt": job.attempt,
        "tracking_run_url": job.tracking_run_id and f"{_plain(settings.mlflow.ui_url)}/#/runs/{job.tracking_run_id}",
        "flow_run_url": job.flow_run_id and f"{_plain(settings.prefect.ui_url)}/runs/flow-run/{job.flow_run_id}",
    }


def _plain(url: str) -> str:
    """A server's address without a user's name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")


def file_view(file: JobFile, kind: JobKind, settings: Settings) -> JobFileView:
    """A file of a job of this kind."""
    image = file.media_type.startswith("image/")
    return JobFileView(
        name=file.name,
        role=file.role,
        media_type=file.media_type,
        size=file.size,
        sha256=file.sha256,
        step=file.step,
        details=file.details,
        created_at=file.created_at,
        url=f"{links(kind, file.job_id).files}/{quote(file.name)}",
        image_url=signed_image(settings.api, file.job_id, file.sha256) if image else None,
    )
