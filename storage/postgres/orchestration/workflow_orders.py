"""From a workflow of Civitai's orchestration to a committed one of ours, or to its price."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.workflow_submissions import price_list, resolve_workflow, submit_workflow
from storage.postgres.generation.workflows import Annotations
from storage.records.generation.resolved_drawings import SourcePicture
from storage.records.generation.resolved_workflows import ResolvedWorkflow, read_workflow
from storage.records.generation.step_fields import StepOutput
from storage.records.generation.step_requests import WorkflowRequest
from storage.records.jobs.jobs import Job
from storage.records.orchestration.rendering import CallerNotes, with_template
from storage.records.orchestration.templates import ImageUpscalerInput, StepRead, TemplateRead, picture_field
from storage.records.orchestration.translation import Asked, asked_of, check_airs, named_in, reference_of
from storage.settings import Settings

Pictures = Mapping[int, str]
"""SHA-256 of the pictures that steps go on from, by the steps' places; of those that name no other step's."""


def submit(
    read: TemplateRead,
    pictures: Pictures,
    account_id: UUID,
    settings: Settings,
    *,
    seed: int,
    idempotency_key: str | None,
    request_id: str | None,
) -> Script[tuple[Job, bool]]:
    """Commit a workflow; returns its job and whether it is new. Raises as `submit_workflow`, with their names."""
    asked = yield from _asked(read, pictures, account_id, settings)
    written = _written(read, pictures)
    try:
        job, is_new = yield from submit_workflow(
            _request(read, asked),
            account_id,
            settings,
            seed=seed,
            idempotency_key=idempotency_key,
            request_id=request_id,
            annotations=Annotations(metadata=written.metadata, step_metadata=written.step_metadata),
        )
    except InvalidRequest as error:
        raise named_in(error, asked) from error
    if is_new:
        # Raised now it undoes what was written: the transaction is this script's.
        check_airs(read_workflow(job.request), asked)
    return job, is_new


def price(
    read: TemplateRead, pictures: Pictures, account_id: UUID, settings: Settings, *, seed: int
) -> Script[tuple[ResolvedWorkflow, CallerNotes]]:
    """What a workflow would be, and what its caller wrote on it. Nothing is written. Raises as `submit`."""
    asked = yield from _asked(read, pictures, account_id, settings)
    resolved = yield from _resolved(read, asked, account_id, settings, seed)
    check_airs(resolved, asked)
    return resolved, _written(read, pictures)


def _request(read: TemplateRead, asked: tuple[Asked, ...]) -> WorkflowRequest:
    return WorkflowRequest(
        workflow=tuple(one.step for one in asked),
        priority=read.priority,
        tags=tuple(read.template.tags or ()),
        external_id=read.template.external_id,
    )


def _resolved(
    read: TemplateRead, asked: tuple[Asked, ...], account_id: UUID, settings: Settings, seed: int
) -> Script[ResolvedWorkflow]:
    prices = price_list(settings.generation)
    try:
        return (yield from resolve_workflow(_request(read, asked), account_id, prices, seed))
    except InvalidRequest as error:
        raise named_in(error, asked) from error


def _asked(read: TemplateRead, pictures: Pictures, account_id: UUID, settings: Settings) -> Script[tuple[Asked, ...]]:
    sent = (yield from source_pictures.find(account_id, list(pictures.values()))) if pictures else {}
    asked: tuple[Asked, ...] = ()
    faults: dict[str, str] = {}
    for place, step in enumerate(read.steps):
        try:
            source = reference_of(step) or pictures.get(place)
            size = None
            if isinstance(step.input, ImageUpscalerInput):
                # A step before it is at fault: its pictures have no size, and the fault is named already.
                if faults:
                    break
                size = yield from _size(step, source, sent, (read, asked, account_id, settings))
            asked = (*asked, asked_of(step, source, size))
        except InvalidRequest as error:
            faults |= {_placed(place, field): reason for field, reason in error.fields.items()}
    if faults:
        raise InvalidRequest(faults)
    return asked


def _placed(place: int, field: str) -> str:
    return field if field.startswith("steps[") else f"steps[{place}].{field}"


def _size(
    step: StepRead,
    source: str | StepOutput | None,
    sent: Mapping[str, SourcePicture],
    before: tuple[TemplateRead, tuple[Asked, ...], UUID, Settings],
) -> Script[tuple[int, int]]:
    """The pixels of a picture that is to be enlarged; of an earlier step's what that step will draw."""
    if isinstance(source, str):
        if source not in sent:
            raise InvalidRequest({f"input.{picture_field(step)}": f"no blob '{source[:12]}...' is yours"})
        return sent[source].width, sent[source].height
    names = {one.step.name or str(place): place for place, one in enumerate(before[1])}
    if source is None or source.step not in names:
        wanted = "" if source is None else source.step
        known = ", ".join(names) or "none: this is the first"
        reason = f"$ref '{wanted}' names no earlier step; there are: {known}"
        raise InvalidRequest({f"input.{picture_field(step)}": reason})
    resolved = yield from _resolved(*before, seed=0)
    drawing = resolved.steps[names[source.step]].drawing
    return drawing.width, drawing.height


def _written(read: TemplateRead, pictures: Pictures) -> CallerNotes:
    """What the caller wrote, and each step as it came, without the bytes of pictures."""
    steps: list[dict[str, Any]] = []
    for place, step in enumerate(read.steps):
        given = dict(step.template.input)
        if place in pictures:
            given[picture_field(step)] = pictures[place]
        steps.append(with_template(step.template.metadata or {}, step.template.kind, given))
    template = read.template
    return CallerNotes(
        tags=list(dict.fromkeys(template.tags or ())),
        metadata=template.metadata or {},
        step_metadata=tuple(steps),
    )
