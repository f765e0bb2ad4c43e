"""From a workflow of Civitai's orchestration to a committed one of ours, or to its price."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.workflow_submissions import price_list, resolve_workflow, submit_workflow
from storage.postgres.generation.workflows import Annotations
from storage.records.generation.resolved_drawings import SourcePicture
from storage.records.generation.resolved_workflows import ResolvedWorkflow, read_workflow
from storage.records.generation.step_fields import StepOutput
from storage.records.generation.step_requests import StepRequest, WorkflowRequest
from storage.records.jobs.jobs import Job
from storage.records.orchestration.rendering import CallerNotes, own_metadata, with_template
from storage.records.orchestration.templates import ImageUpscalerInput, StepRead, TemplateRead, picture_field
from storage.records.orchestration.translation import Asked, asked_of, check_airs, named_in, reference_of
from storage.settings import Settings

Pictures = Mapping[int, str]
"""SHA-256 of the pictures that steps go on from, by the steps' places; of those that name no other step's."""
ALL_KEPT: Mapping[str, SourcePicture] = MappingProxyType({})


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
            beside=_beside(written),
        )
    except InvalidRequest as error:
        raise named_in(error, asked) from error
    if is_new:
        # Raised now it undoes what was written: the transaction is this script's.
        check_airs(read_workflow(job.request), asked)
    return job, is_new


def price(
    read: TemplateRead,
    pictures: Pictures,
    account_id: UUID,
    settings: Settings,
    *,
    seed: int,
    unkept: Mapping[str, SourcePicture] = ALL_KEPT,
) -> Script[tuple[ResolvedWorkflow, CallerNotes]]:
    """What a workflow would be, and what its caller wrote on it. `unkept`: pictures that have come and are not kept, by
    their SHA-256. Nothing is written. Raises as `submit`."""
    asked = yield from _asked(read, pictures, account_id, settings, unkept)
    resolved = yield from _resolved(read, asked, account_id, settings, seed, unkept)
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
    read: TemplateRead,
    asked: tuple[Asked, ...],
    account_id: UUID,
    settings: Settings,
    seed: int,
    unkept: Mapping[str, SourcePicture],
) -> Script[ResolvedWorkflow]:
    prices = price_list(settings.generation)
    try:
        return (yield from resolve_workflow(_request(read, asked), account_id, prices, seed, unkept))
    except InvalidRequest as error:
        raise named_in(error, asked) from error


def _asked(
    read: TemplateRead,
    pictures: Pictures,
    account_id: UUID,
    settings: Settings,
    unkept: Mapping[str, SourcePicture] = ALL_KEPT,
) -> Script[tuple[Asked, ...]]:
    kept = (yield from source_pictures.find(account_id, list(pictures.values()))) if pictures else {}
    sent = {**unkept, **kept}
    sizes = _Sizes(read, account_id, settings, sent)
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
                size = yield from sizes.of(step, source, asked)
            asked = (*asked, asked_of(step, source, size))
        except InvalidRequest as error:
            faults |= {_placed(place, field): reason for field, reason in error.fields.items()}
    if faults:
        raise InvalidRequest(faults)
    return asked


def _placed(place: int, field: str) -> str:
    return field if field.startswith("steps[") else f"steps[{place}].{field}"


class _Sizes:
    """The pixels of pictures that are to be enlarged; of an earlier step's what that step will draw."""

    def __init__(
        self, read: TemplateRead, account_id: UUID, settings: Settings, sent: Mapping[str, SourcePicture]
    ) -> None:
        self._read, self._account_id, self._settings, self._sent = read, account_id, settings, sent
        self._known: dict[int, tuple[int, int]] = {}

    def of(self, step: StepRead, source: str | StepOutput | None, before: tuple[Asked, ...]) -> Script[tuple[int, int]]:
        """Of the picture that a step enlarges. Raises InvalidRequest."""
        if isinstance(source, str):
            if source not in self._sent:
                raise InvalidRequest({f"input.{picture_field(step)}": f"no blob '{source[:12]}...' is yours"})
            return self._sent[source].width, self._sent[source].height
        names = {one.step.name or str(place): place for place, one in enumerate(before)}
        if source is None or source.step not in names:
            wanted = "" if source is None else source.step
            known = ", ".join(names) or "none: this is the first"
            reason = f"$ref '{wanted}' names no earlier step; there are: {known}"
            raise InvalidRequest({f"input.{picture_field(step)}": reason})
        place = names[source.step]
        if place not in self._known:
            # Without their prompts, which take the time and change no size.
            bare = tuple(one._replace(step=_without_prompts(one.step)) for one in before)
            resolved = yield from _resolved(self._read, bare, self._account_id, self._settings, 0, self._sent)
            self._known = {place: (one.drawing.width, one.drawing.height) for place, one in enumerate(resolved.steps)}
        return self._known[place]


def _without_prompts(step: StepRequest) -> StepRequest:
    return msgspec.structs.replace(step, prompt="x", negative_prompt="") if step.prompt else step


def _beside(written: CallerNotes) -> tuple[Any, ...]:
    """What the caller wrote, for what a repeat is; nothing where nothing was."""
    of_steps = [own_metadata(one) for one in written.step_metadata]
    return (written.metadata, of_steps) if written.metadata or any(of_steps) else ()


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
