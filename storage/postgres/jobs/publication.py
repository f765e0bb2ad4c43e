"""What a succeeded job publishes (tx4): its version, its files and its events, together or not at all."""

from __future__ import annotations

from uuid import UUID

from psycopg.types.json import Jsonb

from storage.errors import CancellationRequested, JobLost
from storage.postgres.catalog import catalog
from storage.postgres.connection import Query, Script, load_statements, maybe, one
from storage.postgres.events import outbox
from storage.postgres.jobs import jobs
from storage.records.catalog.catalog import (
    Model,
    ModelVersion,
    TrainedVersion,
)
from storage.records.events.events import ModelVersionPublished
from storage.records.jobs.jobs import Job, JobState
from storage.records.jobs.training import published_recipe

SQL = load_statements(__file__)


def publish(job_id: UUID, attempt: int, new: TrainedVersion) -> Script[ModelVersion]:
    """Model version, files, succeeded job and both events, together or not at all (tx4).

    Raises CancellationRequested when the owner asked to stop first, JobLost when the job is no longer this attempt's.
    """
    # First, and for update: a cancellation that comes now waits, and finds a job that has succeeded.
    job = yield from maybe(jobs.SQL["lock"], {"id": job_id}, Job)
    if job is not None and job.state is JobState.CANCELLING and job.attempt == attempt:
        raise CancellationRequested(f"Job {job_id} was cancelled before it published.")
    if job is None or job.state is not JobState.RUNNING or job.attempt != attempt:
        raise JobLost(f"Job {job_id} is no longer attempt {attempt}'s; nothing was published.")
    yield from catalog.hold_names(job.account_id)
    model = yield from _model(job.account_id, new)
    version = yield from one(SQL["insert_version"], _version_row(new, model.id, job_id), ModelVersion, "the version")
    yield from catalog.add_files(version.id, new.files)
    yield from catalog.add_images(version.id, job.account_id, new.images)
    yield from jobs.succeed(job_id, attempt, version.id)
    yield from outbox.append(ModelVersionPublished(model_version_id=version.id, model_id=model.id, job_id=job_id))
    return version


def model_named(account_id: UUID, name: str) -> Query[Model | None]:
    """The account's model of this name, whose type a version of it has to have."""
    return maybe(SQL["model_named"], {"account_id": account_id, "name": name}, Model)


def _model(account_id: UUID, new: TrainedVersion) -> Script[Model]:
    row = {
        "account_id": account_id,
        "name": new.model_name,
        "type": new.type,
        "availability": new.availability,
    }
    found = yield from maybe(SQL["ensure_model"], row, Model)
    if found is None:
        # Somebody has made a model of another type under that name since the job was submitted: the work is not lost.
        other = {**row, "name": f"{new.model_name} ({new.type})"}
        found = yield from one(SQL["ensure_model"], other, Model, "the model")
    return found


def _version_row(new: TrainedVersion, model_id: int, job_id: UUID) -> dict[str, object]:
    return {
        "model_id": model_id,
        "job_id": job_id,
        "base_model": new.base_model,
        "trained_words": list(new.trained_words),
        "recipe": Jsonb(published_recipe(new.recipe)),
        "evaluation": None if new.evaluation is None else Jsonb(new.evaluation),
        "availability": new.availability,
        "steps": new.steps,
    }
