"""Small valid values for tests: an account with a data set and a base model, jobs made from them, and models."""

from __future__ import annotations

import hashlib
from datetime import date, datetime
from typing import Any
from uuid import UUID

import msgspec
from pydantic import SecretStr

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Database
from storage.postgres.generation import workflow_submissions
from storage.postgres.jobs import base_models, data_sets, job_files, jobs, publication, submissions
from storage.postgres.metrics import leaderboards
from storage.records.accounts.quotas import Limits
from storage.records.catalog.catalog import (
    FileHashes,
    FileRole,
    Model,
    ModelFields,
    ModelVersion,
    NewFile,
    NewImage,
    TrainedVersion,
    VersionFields,
)
from storage.records.catalog.vocabulary import Availability, ModelType
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.base_models import BaseModelCard, EvaluationFacts
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.jobs import Job, JobFile, JobFileRole, JobKind
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingDefaults, TrainingRequest
from storage.records.metrics.leaderboards import BOARDS
from storage.settings import PostgresSettings, Settings

A_HASH = "a" * 64
NO_LIMITS = Limits(account_bytes=0, unfinished_bytes=0, unfinished_uploads=0)


def settings_for(database_url: str) -> Settings:
    """Settings that point at a test's own database."""
    return Settings(postgres=PostgresSettings(url=SecretStr(database_url)))


def a_card() -> BaseModelCard:
    """A base model that knows mugs and cars."""
    return BaseModelCard(
        resolution=64,
        class_words=("mug", "car"),
        sampler=SamplerSettings(steps=2, guidance_scale=3.0),
        training=TrainingDefaults(steps=8, regularization_count=4),
        evaluation=EvaluationFacts(scenes=("on the beach", "in the snow")),
    )


def an_account(database: Database, name: str = "owner") -> UUID:
    """An account with a base model called starter."""
    account = database.run(accounts.ensure_account(name))
    database.run(base_models.register("starter", A_HASH, a_card(), []))
    return account.id


def a_data_set(database: Database, account_id: UUID, images: int = 2) -> UUID:
    """A data set of images whose bytes nobody looks at."""
    rows = [
        DataSetImage(position=n, name=f"{n}.png", sha256=f"{n:064x}", size=10, width=64, height=64)
        for n in range(images)
    ]
    return database.run(data_sets.create(account_id, "photos", rows)).id


def a_job(database: Database, account_id: UUID | None = None, *, key: str | None = None, **fields: Any) -> Job:
    """A submitted training job."""
    owner = an_account(database) if account_id is None else account_id
    data_set = a_data_set(database, owner)
    request = TrainingRequest(data_set_id=data_set, class_word="mug", **fields)
    settings = settings_for("postgresql://unused")
    job, _ = database.run(submissions.submit_training(request, owner, settings, seed=7, idempotency_key=key))
    return job


def a_trained_version(
    database: Database, account_id: UUID, name: str = "mug", *, adapter: bool = False, **fields: Any
) -> ModelVersion:
    """A version that a training has published: a diffusers folder, or an adapter, whose bytes nobody looks at."""
    method = TrainingMethod.LORA if adapter else TrainingMethod.FULL
    job = a_job(database, account_id, name=name, method=method, **fields)
    held = database.run(jobs.claim(job.id, job.attempt, None))
    member = "pytorch_lora_weights.safetensors" if adapter else "unet/diffusion_pytorch_model.safetensors"
    weights = a_file(job.id.hex * 2)
    new = TrainedVersion(
        model_name=name,
        base_model="SD 1.5",
        trained_words=("sks mug",),
        recipe=held.request,
        evaluation=None,
        files=(weights, msgspec.structs.replace(a_file(job.id.hex[::-1] * 2, member), role=FileRole.FOLDER)),
        availability=Availability.PRIVATE,
        type=method.model_type,
    )
    return database.run(publication.publish(job.id, job.attempt, new))


def a_workflow(
    database: Database,
    account_id: UUID | None = None,
    *,
    key: str | None = None,
    settings: Settings | None = None,
    **fields: Any,
) -> Job:
    """A submitted workflow of the fields of a request, which may be plain JSON; one of a single step draws with the
    account's newest model unless it names one."""
    owner = an_account(database) if account_id is None else account_id
    if "workflow" not in fields:
        model = fields.get("model") or the_version(database, owner).id
        fields = {"prompt": "a mug", **fields, "model": model}
    request = msgspec.convert(msgspec.to_builtins(WorkflowRequest(**fields)), WorkflowRequest)
    settings = settings or settings_for("postgresql://unused")
    script = workflow_submissions.submit_workflow(request, owner, settings, seed=7, idempotency_key=key)
    return database.run(script)[0]


def the_version(database: Database, account_id: UUID) -> ModelVersion:
    """The newest version of an account's newest model; a trained one, where it has none."""
    known = database.run(catalog.list_models(account_id, limit=1))
    if not known:
        return a_trained_version(database, account_id)
    return database.run(catalog.versions([known[0].id]))[0]


def a_drawn_picture(database: Database, job: Job, step: str = "0", number: int = 0, **fields: Any) -> JobFile:
    """A picture that a claimed job has drawn, whose bytes nobody looks at."""
    sha256 = hashlib.sha256(f"{job.id} {step} {number}".encode()).hexdigest()
    plain = {"name": f"{step}-{number:03}.png", "sha256": sha256, "size": 10, "media_type": "image/png"}
    details = {"step": step, "number": number, "width": 64, "height": 64}
    wanted: dict[str, Any] = {**plain, "role": JobFileRole.IMAGE, "details": details, **fields}
    return database.run(job_files.put_file(job.id, job.attempt, **wanted))


def a_bare_generation(database: Database) -> Job:
    """A submitted generation that asks for nothing: its flow fails as soon as it reads the request."""
    account = an_account(database)
    new = jobs.NewJob(account_id=account, kind=JobKind.GENERATION, request={}, recipe_hash="r", request_hash="h")
    job, _ = database.run(jobs.submit(new, idempotency_key=None, limit=10, limits=NO_LIMITS))
    return job


def a_model(database: Database, account_id: UUID, name: str = "mug", **fields: Any) -> Model:
    """A draft model."""
    wanted = ModelFields(**{"name": name, "type": ModelType.CHECKPOINT, **fields})
    return database.run(models.create(account_id, wanted))


def a_version(database: Database, model: Model, sha256: str | None = None, **fields: Any) -> ModelVersion:
    """A draft version with one weights file, whose bytes nobody looks at."""
    wanted = VersionFields(**{"name": "v1", "base_model": "SD 1.5", **fields})
    version = database.run(versions.create(model, wanted))
    database.run(catalog.add_files(version.id, [a_file(sha256 or f"{version.id:064x}")]))
    return version


def a_file(sha256: str, path: str = "weights.safetensors", **fields: Any) -> NewFile:
    """A weights file of 2 MiB that has every hash."""
    hashes = FileHashes(auto_v1=sha256[:8], auto_v3=sha256[-12:], crc32=sha256[-8:], blake3=sha256[::-1])
    return NewFile(
        path=path,
        role=FileRole.WEIGHTS,
        sha256=sha256,
        size=2**21,
        hashes=hashes,
        **fields,
    )


def a_published_model(database: Database, account_id: UUID, name: str = "mug", **fields: Any) -> Model:
    """A listed model with one version."""
    model = a_model(database, account_id, name, **fields)
    a_version(database, model)
    database.run(models.publish(model))
    return database.run(catalog.model_by_id(model.id))


def an_image(database: Database, model: Model, **fields: Any) -> int:
    """The id of an image that its owner showed with a model's newest version, whose bytes nobody looks at."""
    [version, *_] = database.run(catalog.versions([model.id]))
    wanted = {"sha256": A_HASH, "size": 10, "media_type": "image/png", "width": 64, "height": 64, "blurhash": "L00000"}
    image = NewImage(**{**wanted, **fields})
    [identity] = database.run(catalog.add_images(version.id, model.account_id, [image]))
    return identity


def boards_of(database: Database, day: date, now: datetime) -> None:
    """The boards of a day, made as the flow makes them."""
    editions = [database.run(leaderboards.prepare(board, day)).edition_id for board in BOARDS.values()]
    database.run(leaderboards.publish(day, editions, now))
