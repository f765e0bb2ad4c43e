"""From a request for pictures to a workflow with nothing left open, and its price: models and sources are looked up."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.generation import source_pictures
from storage.postgres.generation.drawn_models import adapter_facts, model_facts
from storage.postgres.jobs.submissions import of_field
from storage.records.generation.drawings import DrawnAdapter
from storage.records.generation.prices import PriceList
from storage.records.generation.prompts import PromptBudget
from storage.records.generation.resolved_drawings import AdapterFacts, ModelFacts, SourcePicture, drawing_of
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow, stored
from storage.records.generation.step_fields import StepOutput
from storage.records.generation.step_requests import StepRequest, WorkflowRequest
from storage.records.generation.workflows import check_model_named, steps_of, version_named
from storage.records.policy.viewers import Viewer
from storage.settings import GenerationSettings

MAX_BYTES = 256 * 1024
"""Of a request, and of a workflow as it is stored, in which each picture has its own prompt."""


def price_list(settings: GenerationSettings) -> PriceList:
    """The settings' price list."""
    return PriceList(credits=settings.credits, low=settings.low_priority, high=settings.high_priority)


def resolve_workflow(
    request: WorkflowRequest,
    account_id: UUID,
    prices: PriceList,
    seed: int,
    unkept: Mapping[str, SourcePicture] = MappingProxyType({}),
) -> Script[ResolvedWorkflow]:
    """The request with nothing left open but the pictures of its own steps, and its price. `unkept`: pictures that came
    with a request that is only priced, by their SHA-256.

    Raises InvalidRequest for what it names and the account does not see, with fields named by their place, such as
    `workflow[1].adapters[0].model`; Gone for a model that was taken down.
    """
    asked, whole = as_asked(request), "prompt" if request.workflow is None else "workflow"
    if (size := len(msgspec.json.encode(asked))) > MAX_BYTES:
        reason = f"the request is {size:,} bytes; the limit is {MAX_BYTES:,}"
        raise InvalidRequest({whole: f"{reason}. Leave out values of lists, or ask for less in each of several"})
    steps, faults, budget = steps_of(request), dict[str, str](), PromptBudget()
    named = [one for step in steps for one in (step.image, step.mask) if isinstance(one, str)]
    sent = {**unkept, **((yield from source_pictures.find(account_id, named)) if named else {})}
    versions, resolved = _Versions(Viewer(account_id=account_id)), dict[str, ResolvedStep]()
    for place, step in enumerate(steps):
        if any(isinstance(one, StepOutput) and one.step not in resolved for one in (step.image, step.mask)):
            # It goes on from one that has a fault, so that nothing is known of its picture.
            continue
        try:
            made = yield from _resolved(step, (seed, budget), _Sources(sent, resolved), versions)
        except InvalidRequest as error:
            faults |= {_called(request, place, field): reason for field, reason in error.fields.items()}
        else:
            resolved[made.name] = made
    if faults:
        raise InvalidRequest(faults)
    workflow = ResolvedWorkflow(asked=asked, steps=tuple(resolved.values()), priority=request.priority)
    _check_size(workflow, whole)
    return workflow.priced(prices)


def with_files_of_today(resolved: ResolvedWorkflow, account_id: UUID) -> Script[ResolvedWorkflow]:
    """The same, drawn with the files that its versions have now.

    Raises InvalidRequest and Gone, as `resolve_workflow`, for versions that the account does not see any more.
    """
    versions, steps = _Versions(Viewer(account_id=account_id)), list[ResolvedStep]()
    for step in resolved.steps:
        drawing = step.drawing
        # A model without a number is the base of the adapter that comes first; without that the step needs none.
        first = drawing.model.version_id or next((one.version_id for one in drawing.adapters), 0)
        if first:
            facts, _ = yield from versions.model(first)
            adapters = list[DrawnAdapter]()
            for place, old in enumerate(drawing.adapters):
                known = yield from versions.adapter(place, old.version_id)
                adapters.append(msgspec.structs.replace(known.adapter, strength=old.strength))
            drawing = msgspec.structs.replace(drawing, model=facts.model, adapters=tuple(adapters))
        steps.append(msgspec.structs.replace(step, drawing=drawing))
    return msgspec.structs.replace(resolved, steps=tuple(steps))


def as_asked(request: WorkflowRequest) -> dict[str, Any]:
    """The request as plain JSON, without what was left out."""
    defaults = msgspec.to_builtins(WorkflowRequest())
    plain = {name: value for name, value in msgspec.to_builtins(request).items() if value != defaults[name]}
    if request.workflow is not None:
        plain["workflow"] = [
            {name: value for name, value in step.items() if value != defaults[name]} for step in plain["workflow"]
        ]
    return plain


def _called(request: WorkflowRequest, place: int, field: str) -> str:
    return field if request.workflow is None else f"workflow[{place}].{field}"


def _check_size(workflow: ResolvedWorkflow, field: str) -> None:
    size = len(msgspec.json.encode(stored(workflow)))
    if size > MAX_BYTES:
        reason = f"{workflow.pictures} pictures and their prompts are {size:,} bytes; the limit is {MAX_BYTES:,}"
        raise InvalidRequest({field: f"{reason}. Ask for fewer in each of several requests"})


class _Versions:
    """Versions as a viewer sees them, each looked up once."""

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._models: dict[int, tuple[ModelFacts, tuple[AdapterFacts, ...]]] = {}
        self._adapters: dict[int, AdapterFacts] = {}

    def model(self, asked: int | str) -> Script[tuple[ModelFacts, tuple[AdapterFacts, ...]]]:
        """What a step draws with, and the adapter that it may be. Raises InvalidRequest, Gone."""
        version_id = version_named("model", asked)
        if version_id not in self._models:
            self._models[version_id] = yield from of_field("model", model_facts(version_id, self._viewer))
        facts, implied = self._models[version_id]
        check_model_named("model", asked, implied[0].adapter.air if implied else facts.model.air)
        return facts, implied

    def adapter(self, place: int, asked: int | str) -> Script[AdapterFacts]:
        """An adapter beside it. Raises InvalidRequest, Gone."""
        field = f"adapters[{place}].model"
        version_id = version_named(field, asked)
        if version_id not in self._adapters:
            self._adapters[version_id] = yield from of_field(field, adapter_facts(field, version_id, self._viewer))
        check_model_named(field, asked, self._adapters[version_id].adapter.air)
        return self._adapters[version_id]


class _Sources:
    """What pictures a step may go on from: those that were sent, and those of the steps before it."""

    def __init__(self, sent: dict[str, SourcePicture], resolved: dict[str, ResolvedStep]) -> None:
        self._sent, self._resolved = sent, resolved

    def picture(self, field: str, named: str | StepOutput | None) -> SourcePicture | None:
        """A picture's hash, empty for one that is yet to be drawn, and its pixels. Raises InvalidRequest."""
        if named is None:
            return None
        if isinstance(named, StepOutput):
            drawing = self._resolved[named.step].drawing
            return SourcePicture("", drawing.width, drawing.height)
        if named not in self._sent:
            raise InvalidRequest(
                {field: f"no picture {named[:12]}... of yours; send it to POST /api/v1/generations/sources first"}
            )
        return self._sent[named]


def _resolved(
    step: StepRequest, given: tuple[int, PromptBudget], sources: _Sources, versions: _Versions
) -> Script[ResolvedStep]:
    source, mask = sources.picture("image", step.image), sources.picture("mask", step.mask)
    facts, implied = (None, ()) if step.model is None else (yield from versions.model(step.model))
    adapters = list(implied)
    for place, asked in enumerate(step.adapters):
        adapters.append((yield from versions.adapter(place, asked.model)))
    seed, budget = given
    drawing = drawing_of(step, facts, adapters, seed, implied=len(implied), source=source, mask=mask, budget=budget)
    return ResolvedStep(
        name=step.name or "0",
        drawing=drawing,
        image=step.image if isinstance(step.image, StepOutput) else None,
        mask=step.mask if isinstance(step.mask, StepOutput) else None,
        backend="" if step.backend is None else step.backend.value,
    )
