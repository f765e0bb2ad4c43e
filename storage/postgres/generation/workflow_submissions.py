"""From a request for pictures to a committed workflow, or to its price: the one way in, whoever asks."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import Gone, InvalidRequest, ModelNotAvailable, WrongState
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures, workflows
from storage.postgres.generation.drawn_models import check_drawn_with
from storage.postgres.generation.workflow_requests import (
    as_asked,
    price_list,
    resolve_workflow,
    with_files_of_today,
)
from storage.postgres.generation.workflows import Annotations, NewWorkflow
from storage.postgres.jobs import jobs
from storage.postgres.jobs.submissions import hash_of_retry
from storage.records.generation.prompts import escaped
from storage.records.generation.resolved_workflows import ResolvedWorkflow, is_workflow, read_workflow, stored
from storage.records.generation.step_fields import MAX_SEED
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState
from storage.records.policy.viewers import Viewer
from storage.settings import Settings

NOTHING_WRITTEN = Annotations()


def submit_workflow(
    request: WorkflowRequest,
    account_id: UUID,
    settings: Settings,
    *,
    seed: int,
    idempotency_key: str | None = None,
    request_id: str | None = None,
    annotations: Annotations = NOTHING_WRITTEN,
    beside: Sequence[Any] = (),
) -> Script[tuple[Job, bool]]:
    """Commit a workflow; `seed` is used by steps that name none. Returns its job and whether it is new: an `externalId`
    that the account has used returns the job that it was used for. `beside`: what else must be the same of a repeat, as
    plain JSON.

    Raises InvalidRequest by field, Gone for a model that was taken down, IdempotencyKeyReused, TooManyRequests,
    QuotaExceeded.
    """
    if idempotency_key is not None and request.external_id is not None:
        raise InvalidRequest({"externalId": "does what an Idempotency-Key does: send one of them"})
    request_hash, external_id = hash_of_request(request, *beside), request.external_id
    # Before it is resolved: what it names may be gone since, and a repeat makes nothing new.
    if external_id is not None:
        earlier = yield from workflows.named(account_id, external_id, request_hash)
        if earlier is not None:
            return earlier, False
    resolved = yield from resolve_workflow(request, account_id, price_list(settings.generation), seed)
    new = jobs.NewJob(
        account_id=account_id,
        kind=JobKind.GENERATION,
        request=stored(resolved),
        recipe_hash=resolved.fingerprint(),
        request_hash=request_hash,
        request_id=request_id,
    )

    def earlier_one() -> Script[Job | None]:
        # Once more, while the account submits nothing else.
        if external_id is None:
            return None
        return (yield from workflows.named(account_id, external_id, request_hash))

    job, is_new = yield from jobs.submit(
        new,
        idempotency_key=idempotency_key,
        limit=settings.jobs.max_queued_per_account,
        limits=settings.quotas.limits,
        earlier_one=earlier_one,
    )
    if is_new:
        written = msgspec.structs.replace(annotations, tags=(*request.tags, *annotations.tags))
        rows = NewWorkflow(request_hash=request_hash, external_id=external_id, annotations=written)
        yield from workflows.add(job, resolved, rows)
    return job, is_new


def hash_of_request(request: WorkflowRequest, *beside: Any) -> str:
    """SHA-256 of what the caller asked for, and of what was said beside it, to distinguish a repeat from another
    request under one name of it.

    Fields that were left out are no part of it, so that another release, which has more of them, finds the same.
    """
    asked = as_asked(request)
    return hashlib.sha256(msgspec.json.encode([asked, *beside] if beside else asked, order="sorted")).hexdigest()


def retry_workflow(
    job_id: UUID,
    account_id: UUID,
    settings: Settings,
    *,
    idempotency_key: str | None = None,
    request_id: str | None = None,
) -> Script[tuple[Job, bool]]:
    """A new job that draws what one that failed or was cancelled was to draw, with its seeds, from its first step, at
    today's prices and with the files that its versions have today.

    Returns the job and whether it is new. Raises NotFound, WrongState when the job has not ended or has succeeded,
    InvalidRequest and Gone when a model may not be seen any more, or a source picture is gone.
    """
    old = yield from jobs.get_for_account(job_id, account_id)
    if old.state not in TERMINAL or old.state is JobState.SUCCEEDED:
        raise WrongState(f"Job {job_id} is {old.state}. Only a failed or cancelled job can be retried.")
    prices = price_list(settings.generation)
    if is_workflow(old.request):
        resolved = (yield from with_files_of_today(read_workflow(old.request), account_id)).priced(prices)
        yield from _check_sources(resolved, account_id)
    else:
        resolved = yield from resolve_workflow(request_of(old), account_id, prices, 0)
    new = jobs.NewJob(
        account_id=account_id,
        kind=JobKind.GENERATION,
        request=stored(resolved),
        recipe_hash=resolved.fingerprint(),
        # Of what was asked for, which is the retry of this job: two retries under one key are one.
        request_hash=hash_of_retry(job_id),
        retry_of=job_id,
        request_id=request_id,
    )
    job, is_new = yield from jobs.submit(
        new,
        idempotency_key=idempotency_key,
        limit=settings.jobs.max_queued_per_account,
        limits=settings.quotas.limits,
    )
    if is_new:
        yield from workflows.inherit(job, resolved, job_id)
    return job, is_new


def adopted(job: Job, settings: Settings) -> Script[ResolvedWorkflow]:
    """The workflow of a claimed job. One that was submitted before there were workflows becomes one, and stays free of
    charge as it was.

    Raises InvalidRequest for what this release does not know, or what is gone; ModelNotAvailable for a version that the
    account saw when it submitted, and sees no more.
    """
    if is_workflow(job.request):
        resolved = read_workflow(job.request)
        yield from _check_still_seen(resolved.versions, job.account_id)
        return resolved
    request = request_of(job)
    yield from _check_still_seen([one for one in [request.model] if isinstance(one, int)], job.account_id)
    free = msgspec.structs.replace(price_list(settings.generation), credits=0.0)
    resolved = yield from resolve_workflow(request, job.account_id, free, 0)
    yield from jobs.rewrite(job.id, stored(resolved), resolved.fingerprint())
    yield from workflows.add(job, resolved, NewWorkflow(request_hash=""))
    # Its one step has as many pictures, with the same numbers.
    yield from workflows.adopt_pictures(job.id, resolved.steps[0])
    return resolved


def request_of(job: Job) -> WorkflowRequest:
    """What a generation of before there were workflows asks for. Raises InvalidRequest."""
    try:
        recipe = msgspec.convert(job.request, GenerationRecipe)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"request": f"is none that this release can read: {error}"}) from error
    return WorkflowRequest(
        model=recipe.model_version_id,
        prompt=_literal(recipe.prompt),
        negative_prompt=_literal(recipe.negative_prompt),
        count=recipe.count,
        seed=recipe.seed % (MAX_SEED + 1),
        steps=recipe.sampler.steps,
        guidance_scale=recipe.sampler.guidance_scale,
        exact=True,
    )


def _literal(prompt: str) -> str:
    """A prompt of when brackets and braces were characters like others."""
    return re.sub(r"[{}_]", r"\\\g<0>", escaped(prompt))


def _check_still_seen(version_ids: Iterable[int], account_id: UUID) -> Script[None]:
    try:
        yield from check_drawn_with(version_ids, Viewer(account_id=account_id))
    except (InvalidRequest, Gone) as error:
        raise ModelNotAvailable(
            f"What was to be drawn with is not available any more. {error} Draw with another version."
        ) from error


def _check_sources(resolved: ResolvedWorkflow, account_id: UUID) -> Script[None]:
    """Raise InvalidRequest unless the account has every source picture."""
    there = yield from source_pictures.find(account_id, resolved.sources)
    gone = [f"{one[:12]}..." for one in resolved.sources if one not in there]
    if gone:
        raise InvalidRequest({"image": f"picture {', '.join(gone)} is gone; send it again, and submit once more"})
