"""From a client's request to a committed job: the one way in, for the API and for the Prefect form alike."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar, cast
from uuid import UUID

import msgspec

from storage.errors import InvalidRequest, NotFound, WrongState
from storage.postgres.connection import Script
from storage.postgres.jobs import base_models, data_sets, job_files, jobs, publication
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState, RepeatedStage
from storage.records.jobs.photos.photo_warnings import photo_warnings
from storage.records.jobs.requirements import with_needs
from storage.records.jobs.resolved_requests import resolve
from storage.records.jobs.training import TrainingJobRequest, TrainingRequest
from storage.records.jobs.validation import refuse_photos_that_do_not_fit
from storage.settings import Settings

T = TypeVar("T")
_ADDED = frozenset(
    {
        *("method", "optimizer", "backend"),
        *("weightDecay", "maxGradientNorm", "learningRateSchedule", "warmUpSteps", "scheduleCycles", "schedulePower"),
        *("scheduleRules", "emaDecay", "keepCheckpoints", "keepEvery", "keepEveryEpochs"),
        *("precision", "gradientCheckpointing", "compile", "exportDtype", "preset", "sampler", "evaluationScenes"),
        "frozenPrecision",
        *("accumulation", "splitBackward", "snrGamma", "noiseOffset", "captionDropout"),
        *("validationEvery", "validationPhotos"),
        *("bucketing", "bucketStep", "bucketMinSide", "bucketMaxSide", "randomCrop", "cachedCrops", "randomFlip"),
        *(
            "trainOnly",
            "textEncoderSteps",
            "loraRank",
            "loraAlpha",
            "loraDropout",
            "loraDora",
            "loraConv",
            "loraTargets",
        ),
    }
)
"""Fields that requests of before did not have: empty ones change no hash, so that releases know each other's keys."""


def submit_training(
    request: TrainingRequest,
    account_id: UUID,
    settings: Settings,
    *,
    seed: int,
    idempotency_key: str | None = None,
    request_id: str | None = None,
) -> Script[tuple[Job, bool]]:
    """Commit a training job; `seed` is used when the request names none. Returns the job and whether it is new.

    Raises InvalidRequest, IdempotencyKeyReused, TooManyRequests, QuotaExceeded.
    """
    # Held until the commit: a data set that is deleted at this moment must not be left to a job that needs it.
    data_set = yield from of_field("dataSetId", data_sets.hold(request.data_set_id, account_id))
    # A Query as a script of one statement.
    base = yield from of_field("baseModel", iter(base_models.by_name(request.base_model)))
    photos = yield from data_sets.images(request.data_set_id)
    resolved = resolve(
        request,
        data_set_hash=data_set.content_hash,
        base=base.resolving_facts(),
        seed=seed,
        photos=photos,
    )
    different = len({photo.sha256 for photo in photos})
    refuse_photos_that_do_not_fit(msgspec.structs.asdict(resolved.recipe), different)
    resolved = msgspec.structs.replace(resolved, warnings=photo_warnings(photos, resolved.recipe))
    yield from _refuse_name_of_another_type(account_id, resolved)
    new = jobs.NewJob(
        account_id=account_id,
        kind=JobKind.TRAINING,
        request=with_needs(msgspec.to_builtins(resolved)),
        recipe_hash=resolved.recipe.fingerprint(),
        request_hash=hash_request(JobKind.TRAINING, request),
        data_set_id=request.data_set_id,
        request_id=request_id,
    )
    return (yield from _submit(new, settings, idempotency_key))


def retry(
    job_id: UUID,
    account_id: UUID,
    settings: Settings,
    *,
    step: int | None = None,
    stage: RepeatedStage | None = None,
    idempotency_key: str | None = None,
    request_id: str | None = None,
) -> Script[tuple[Job, bool]]:
    """A new job with the recipe of a training that has ended, behind the stages and the steps that it has done. Returns
    the job and whether it is new.

    With `step` the new job ends at the checkpoint of that step, which must have stayed: it is evaluated and published
    as it is. Then the old job may have succeeded. With `stage` that one is done again, and what is made from it; so it
    may where the fit is asked for, or its last step's checkpoint has stayed.

    Raises NotFound, WrongState when the job has not ended or succeeded, InvalidRequest when it is no training, and when
    its data set, base model or the step's checkpoint is gone.
    """
    old = yield from jobs.get_for_account(job_id, account_id)
    if old.kind is not JobKind.TRAINING:
        raise InvalidRequest({"stage": "is of trainings: a generation has none"})
    if old.state not in TERMINAL or (step is None and stage is None and old.state is JobState.SUCCEEDED):
        raise WrongState(f"Job {job_id} is {old.state}. Only a failed or cancelled job can be retried.")
    if old.data_set_id is not None:
        yield from of_field("dataSetId", data_sets.hold(old.data_set_id, account_id))
    if step is not None and stage is not None:
        raise InvalidRequest(
            {"stage": "a retry that ends at a step evaluates and exports again; leave one of them out"}
        )
    wanted = old.request
    recipe = msgspec.convert(old.request, TrainingJobRequest).recipe
    latest = recipe.last_step
    if step is not None:
        yield from _check_step(job_id, step)
        # Its recipe's hash stays the old one: its checkpoint names it.
        wanted = _ending_at(old.request, step)
    elif stage is not None and old.state is JobState.SUCCEEDED and stage is not RepeatedStage.FIT:
        yield from _check_step(job_id, recipe.last_step)
    yield from of_field("baseModel", iter(base_models.hold_by_hash(recipe.base_model_hash)))
    new = jobs.NewJob(
        account_id=account_id,
        kind=old.kind,
        request=wanted,
        recipe_hash=old.recipe_hash,
        # Of what was asked for, which is the retry of this job: two retries under one key are one.
        request_hash=hash_of_retry(job_id, step, stage),
        data_set_id=old.data_set_id,
        retry_of=job_id,
        retry_latest=latest,
        retry_step=step,
        again=() if stage is None else stage.repeats,
        request_id=request_id,
    )
    return (yield from _submit(new, settings, idempotency_key))


def hash_of_retry(job_id: UUID, step: int | None = None, stage: RepeatedStage | None = None) -> str:
    """SHA-256 of what a retry asks for, to distinguish a repeated request from a reused key."""
    again = "" if stage is None else f" again {stage}"
    return hashlib.sha256(f"retry {job_id}{'' if step is None else f' at {step}'}{again}".encode()).hexdigest()


def _check_step(job_id: UUID, step: int) -> Script[None]:
    """Raise InvalidRequest naming the steps there are unless the job has a checkpoint of this one."""
    kept = yield from job_files.checkpoints(job_id)
    if step not in (steps := sorted(row.step for row in kept)):
        there = f"; those there are: {', '.join(map(str, steps))}" if steps else ""
        raise InvalidRequest({"step": f"no checkpoint of step {step} has stayed{there}. keepEvery lets some stay"})


def _ending_at(request: Mapping[str, Any], step: int) -> dict[str, Any]:
    # The steps stay: schedules count them, and the chosen one was trained as one of so many.
    recipe = {**cast(dict[str, Any], request["recipe"]), "chosen_step": step}
    return with_needs({**request, "recipe": recipe})


def _refuse_name_of_another_type(account_id: UUID, resolved: TrainingJobRequest) -> Script[None]:
    made = TrainingMethod(resolved.recipe.method).model_type
    model = yield from publication.model_named(account_id, resolved.model_name)
    if model is not None and model.type is not made:
        reason = f"'{model.name}' is a model of type {model.type}, and this makes a {made}; choose another name"
        raise InvalidRequest({"name": reason})


def _submit(new: jobs.NewJob, settings: Settings, idempotency_key: str | None) -> Script[tuple[Job, bool]]:
    limit, limits = settings.jobs.max_queued_per_account, settings.quotas.limits
    return (yield from jobs.submit(new, idempotency_key=idempotency_key, limit=limit, limits=limits))


def hash_request(kind: JobKind, request: msgspec.Struct) -> str:
    """SHA-256 of what the caller asked for, to distinguish a repeated request from a reused key."""
    fields = {
        name: value for name, value in msgspec.to_builtins(request).items() if value is not None or name not in _ADDED
    }
    return hashlib.sha256(kind.encode() + b"\n" + msgspec.json.encode(fields, order="sorted")).hexdigest()


def of_field(name: str, script: Script[T]) -> Script[T]:
    """The script's value; what it does not find is a fault of the request's field `name`."""
    try:
        return (yield from script)
    except NotFound as error:
        raise InvalidRequest({name: str(error)}) from error
