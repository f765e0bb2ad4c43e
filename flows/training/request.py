"""@flow request-training: the form in the Prefect UI. It submits like the API does."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import msgspec
from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact
from prefect.runtime import flow_run
from pydantic import Field

from flows.runs.retries import run_with_retries
from storage.free_space import check_free_space
from storage.postgres.accounts import accounts
from storage.postgres.connection import Script
from storage.postgres.jobs.submissions import submit_training
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingRequest
from storage.records.jobs.training_fields import TrainingField, nested, training_fields
from storage.settings import Settings, load_settings
from storage.stores import open_stores


def with_training_fields(function: Callable[..., str]) -> Callable[..., str]:
    """The function with a parameter for each field of a training request, which it is given by name.

    Prefect makes the form of its page from the signature, and checks a run's parameters by it.
    """
    parameters = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if field.required else field.default,
            annotation=_annotation(field),
        )
        for field in training_fields()
    ]
    described = cast(Any, function)
    # The page shows what the docstring says of a parameter, and nothing of a pydantic field's own description.
    lines = [f"    {field.name}: {field.help}" for field in training_fields()]
    described.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Args:", *lines])
    described.__signature__ = inspect.Signature(parameters, return_annotation=str)
    described.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": str}
    return function


def _annotation(field: TrainingField) -> Any:
    kind: Any = Literal[field.choices] if field.choices else field.kind
    limits: dict[str, Any] = dict(field.limits)
    described: Any = Annotated[kind, Field(**limits)]
    return described | None if field.optional else described


@flow(name="request-training")
@with_training_fields
def request_training(**fields: Any) -> str:
    """Start a fine-tune of a subject as the owner of this platform; returns the job's id.

    What is left empty takes the base model's own default, where it has one.
    """
    request = msgspec.convert(nested(fields), TrainingRequest)
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
