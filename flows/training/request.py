"""@flow request-training: the form in the Prefect UI. It submits like the API does."""

from __future__ import annotations

import secrets
from typing import Annotated, Literal
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows.runs.retries import run_with_retries
from storage.free_space import check_free_space
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.postgres.jobs.submissions import submit_training
from storage.records.jobs.choices import TrainingMethod, TrainingOptimizer
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingRequest
from storage.settings import Settings, load_settings
from storage.stores import open_stores


@flow(name="request-training")
def request_training(
    data_set_id: UUID,
    class_word: Annotated[str, Field(min_length=1, max_length=64)],
    base_model: Annotated[str, Field(min_length=1, max_length=64)] = "starter",
    name: Annotated[str, Field(min_length=1, max_length=120)] | None = None,
    identifier: Annotated[str, Field(min_length=1, max_length=32)] | None = None,
    steps: Annotated[int, Field(ge=1, le=20_000)] | None = None,
    batch_size: Annotated[int, Field(ge=1, le=64)] | None = None,
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None,
    prior_loss_weight: Annotated[float, Field(ge=0, le=10)] | None = None,
    method: TrainingMethod | None = None,
    optimizer: TrainingOptimizer | None = None,
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None,
    availability: Literal["Public", "Private"] = "Private",
) -> str:
    """Start a fine-tune of a subject as the owner of this platform; returns the job's id.

    Args:
        data_set_id: The uploaded photos (POST /api/v1/data-sets answers with it).
        class_word: The noun of the subject, for example mug.
        base_model: Name of a registered base model.
        name: Name of the catalogue model; empty: identifier and class word.
        identifier: The rare word for the subject; empty: the base model's own.
        steps: Optimizer steps; empty: the base model's default.
        batch_size: Instance images a step; empty: the base model's default.
        learning_rate: UNet learning rate; empty: the base model's default.
        prior_loss_weight: 0 trains without prior preservation; empty: the base model's default.
        method: Which weights are trained; empty: the base model's default.
        optimizer: How gradients become steps; empty: the base model's default.
        seed: Same seed, same weights; empty: a random one.
        availability: Who sees the result: everybody, or the owner alone until it is published.
    """
    request = TrainingRequest(
        data_set_id=data_set_id,
        class_word=class_word,
        base_model=base_model,
        name=name,
        identifier=identifier,
        steps=steps,
        batch_size=batch_size,
        learning_rate=learning_rate,
        prior_loss_weight=prior_loss_weight,
        method=method,
        optimizer=optimizer,
        seed=seed,
        availability=availability,
    )
    settings = load_settings()
    # As the API does before it takes a job.
    check_free_space(settings)
    with open_stores(settings) as stores:
        job, new = run_with_retries(stores, lambda: _submit_as_owner(request, settings))
    link = f"{settings.prefect.ui_url}/runs?tags=job%3A{job.id}"
    create_link_artifact(key="job", link=link, link_text=f"Flow runs of job {job.id}", description=f"Job {job.id}")
    get_run_logger().info("job %s %s", job.id, "submitted" if new else "was submitted before")
    return str(job.id)


def _submit_as_owner(request: TrainingRequest, settings: Settings) -> Script[tuple[Job, bool]]:
    owner = yield from accounts.owner()
    # The same flow run again, by Prefect's retry button for one, is the same job.
    key = f"prefect-form:{flow_run.id}"
    seed = secrets.randbelow(2**31)
    return (yield from submit_training(request, owner.id, settings, seed=seed, idempotency_key=key))
