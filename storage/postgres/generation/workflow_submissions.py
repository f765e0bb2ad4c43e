"""From a request for pictures to a committed workflow, or to its price: the one way in, whoever asks."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from storage.errors import InvalidRequest, WrongState
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures, workflows
from storage.postgres.generation.drawn_models import adapter_facts, model_facts
from storage.postgres.generation.workflows import Annotations, NewWorkflow
from storage.postgres.jobs import jobs
from storage.postgres.jobs.submissions import hash_of_retry, hash_request, of_field
from storage.records.generation.drawings import Drawing
from storage.records.generation.prices import PriceList, Priority, picture_price, picture_units
from storage.records.generation.resolved_drawings import SourcePicture, drawing_of
from storage.records.generation.resolved_workflows import (
    ResolvedStep,
    ResolvedWorkflow,
    is_workflow,
    read_workflow,
    stored,
)
from storage.records.generation.step_fields import MAX_SEED, StepOutput
from storage.records.generation.step_requests import StepRequest, WorkflowRequest
from storage.records.generation.workflows import steps_of, version_named
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState
from storage.records.policy.viewers import Viewer
from storage.settings import GenerationSettings, Settings

NOTHING_WRITTEN = Annotations()


def price_list(settings: GenerationSettings) -> PriceList:
    """The settings' price list."""
    return PriceList(credits=settings.credits, low=settings.low_priority, high=settings.high_priority)


def submit_workflow(
    request: WorkflowRequest,
    account_id: UUID,
    settings: Settings,
    *,
    seed: int,
    idempotency_key: str | None = None,
    request_id: str | None = None,
    annotations: Annotations = NOTHING_WRITTEN,
) -> Script[tuple[Job, bool]]:
    """Commit a workflow; `seed` is used by steps that name none. Returns its job and whether it is new: an `externalId`
    that the account has used returns the job that it was used for.

    Raises InvalidRequest by field, Gone for a model that was taken down, IdempotencyKeyReused, TooManyRequests,
    QuotaExceeded.
    """
    if idempotency_key is not None and request.external_id is not None:
        raise InvalidRequest({"externalId": "does what an Idempotency-Key does: send one of them"})
    request_hash, external_id = hash_request(JobKind.GENERATION, request), request.external_id
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


def resolve_workflow(
    request: WorkflowRequest, account_id: UUID, prices: PriceList, seed: int
) -> Script[ResolvedWorkflow]:
    """The request with nothing left open but the pictures of its own steps, and its price. Raises as `submit_workflow`
    for what it names; fields are named by their place, such as `workflow[1].adapters[0].model`."""
    steps, faults = steps_of(request), dict[str, str]()
    sent = yield from source_pictures.find(
        account_id, [one for step in steps for one in (step.image, step.mask) if isinstance(one, str)]
    )
    resolved: dict[str, ResolvedStep] = {}
    for place, step in enumerate(steps):
        try:
            made = yield from _resolved(step, account_id, seed, _Sources(sent, resolved))
        except InvalidRequest as error:
            faults |= {_called(request, place, field): reason for field, reason in error.fields.items()}
            # Later ones may name its pictures, of which nothing is known: they would be called wrong for its faults.
            break
        resolved[made.name] = msgspec.structs.replace(
            made,
            picture_price=picture_price(made.drawing, request.priority, prices),
            picture_units=picture_units(made.drawing),
        )
    if faults:
        raise InvalidRequest(faults)
    return ResolvedWorkflow(asked=_asked(request), steps=tuple(resolved.values()), priority=Priority(request.priority))


def _called(request: WorkflowRequest, place: int, field: str) -> str:
    return field if request.workflow is None else f"workflow[{place}].{field}"


def _asked(request: WorkflowRequest) -> dict[str, Any]:
    """The request as plain JSON, without what was left out."""
    defaults = msgspec.to_builtins(WorkflowRequest())
    plain = {name: value for name, value in msgspec.to_builtins(request).items() if value != defaults[name]}
    if request.workflow is not None:
        plain["workflow"] = [
            {name: value for name, value in step.items() if value != defaults[name]} for step in plain["workflow"]
        ]
    return plain


class _Sources:
    """What pictures a step may go on from: those that were sent, and those of the steps before it."""

    def __init__(self, sent: dict[str, SourcePicture], resolved: dict[str, ResolvedStep]) -> None:
        self._sent, self._resolved = sent, resolved

    def picture(self, field: str, named: str | StepOutput | None) -> SourcePicture | None:
        """A picture's hash, empty for one that is yet to be drawn, and its pixels. Raises InvalidRequest."""
        if named is None:
            return None
        if isinstance(named, StepOutput):
            drawing: Drawing = self._resolved[named.step].drawing
            return SourcePicture("", drawing.width, drawing.height)
        if named not in self._sent:
            raise InvalidRequest(
                {field: f"no picture {named[:12]}... of yours; send it to POST /api/v1/generations/sources first"}
            )
        return self._sent[named]


def _resolved(step: StepRequest, account_id: UUID, seed: int, sources: _Sources) -> Script[ResolvedStep]:
    source, mask = sources.picture("image", step.image), sources.picture("mask", step.mask)
    facts, implied, viewer = None, (), Viewer(account_id=account_id)
    if step.model is not None:
        version_id = version_named("model", step.model)
        facts, implied = yield from of_field("model", model_facts(version_id, viewer))
    adapters = list(implied)
    for place, asked in enumerate(step.adapters):
        field = f"adapters[{place}].model"
        adapters.append((yield from of_field(field, adapter_facts(field, version_named(field, asked.model), viewer))))
    drawing = drawing_of(step, facts, adapters, seed, implied=len(implied), source=source, mask=mask)
    return ResolvedStep(
        name=step.name or "0",
        drawing=drawing,
        image=step.image if isinstance(step.image, StepOutput) else None,
        mask=step.mask if isinstance(step.mask, StepOutput) else None,
        backend="" if step.backend is None else step.backend.value,
    )


def retry_workflow(
    job_id: UUID,
    account_id: UUID,
    settings: Settings,
    *,
    idempotency_key: str | None = None,
    request_id: str | None = None,
) -> Script[tuple[Job, bool]]:
    """A new job that draws what one that failed or was cancelled was to draw, with its seeds, from its first step.

    Returns the job and whether it is new. Raises NotFound, WrongState when the job has not ended or has succeeded,
    InvalidRequest and Gone when a model that it draws with may not be seen any more.
    """
    old = yield from jobs.get_for_account(job_id, account_id)
    if old.state not in TERMINAL or old.state is JobState.SUCCEEDED:
        raise WrongState(f"Job {job_id} is {old.state}. Only a failed or cancelled job can be retried.")
    resolved = (
        read_workflow(old.request)
        if is_workflow(old.request)
        else (yield from resolve_workflow(request_of(old), account_id, price_list(settings.generation), 0))
    )
    yield from _check_models(resolved, account_id)
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
        yield from workflows.inherit(job, job_id)
    return job, is_new


def adopted(job: Job, settings: Settings) -> Script[ResolvedWorkflow]:
    """The workflow of a claimed job. One that was submitted before there were workflows becomes one.

    Raises InvalidRequest for what this release does not know, or what is gone.
    """
    if is_workflow(job.request):
        return read_workflow(job.request)
    resolved = yield from resolve_workflow(request_of(job), job.account_id, price_list(settings.generation), 0)
    yield from jobs.rewrite(job.id, stored(resolved), resolved.fingerprint())
    yield from workflows.add(job, resolved, NewWorkflow(request_hash=""))
    return resolved


def request_of(job: Job) -> WorkflowRequest:
    """What a generation of before there were workflows asks for. Raises InvalidRequest."""
    try:
        recipe = msgspec.convert(job.request, GenerationRecipe)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"request": f"is none that this release can read: {error}"}) from error
    return WorkflowRequest(
        model=recipe.model_version_id,
        prompt=recipe.prompt,
        negative_prompt=recipe.negative_prompt,
        count=recipe.count,
        seed=recipe.seed % (MAX_SEED + 1),
        steps=recipe.sampler.steps,
        guidance_scale=recipe.sampler.guidance_scale,
        exact=True,
    )


def _check_models(resolved: ResolvedWorkflow, account_id: UUID) -> Script[None]:
    viewer = Viewer(account_id=account_id)
    for step in resolved.steps:
        named = (step.drawing.model.version_id, *(adapter.version_id for adapter in step.drawing.adapters))
        for version_id in dict.fromkeys(named):
            # 0: what no version is, such as the base of an adapter.
            if version_id:
                yield from of_field("model", model_facts(version_id, viewer))
