"""Small valid values for tests: an account with a data set and a base model, and jobs made from them."""

from __future__ import annotations

from uuid import UUID

from pydantic import SecretStr

from storage.postgres import access, base_models, submissions, uploads
from storage.postgres.connection import Database
from storage.records.base_models import BaseModelCard, EvaluationFacts
from storage.records.jobs import Job
from storage.records.training import SamplerSettings, TrainingDefaults, TrainingRequest
from storage.records.uploads import DataSetImage
from storage.settings import PostgresSettings, Settings

A_HASH = "a" * 64


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
    account = database.run(access.ensure_account(name))
    database.run(base_models.register("starter", A_HASH, a_card(), []))
    return account.id


def a_data_set(database: Database, account_id: UUID, images: int = 2) -> UUID:
    """A data set of images whose bytes nobody looks at."""
    rows = [
        DataSetImage(position=n, name=f"{n}.png", sha256=f"{n:064x}", size=10, width=64, height=64)
        for n in range(images)
    ]
    return database.run(uploads.create(account_id, "photos", rows)).id


def a_job(database: Database, account_id: UUID | None = None, *, key: str | None = None, **fields: object) -> Job:
    """A submitted training job."""
    owner = an_account(database) if account_id is None else account_id
    data_set = a_data_set(database, owner)
    request = TrainingRequest(data_set_id=data_set, class_word="mug", **fields)  # type: ignore[arg-type]
    settings = settings_for("postgresql://unused")
    job, _ = database.run(submissions.submit_training(request, owner, settings, seed=7, idempotency_key=key))
    return job
