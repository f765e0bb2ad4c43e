"""Generations as clients see them: workflows, their steps, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, cast
from urllib.parse import quote

import msgspec
from msgspec import Meta

from platform_api.generation.workflow_estimates import scheduler_shown, seconds_left
from platform_api.http.pages import camelised, signed_image
from platform_api.jobs.job_views import JobDetail, JobFailure, JobSummary, detail_fields, links, summary_fields
from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.generation import workflows
from storage.postgres.jobs import job_files
from storage.records.generation.prices import Priority
from storage.records.generation.resolved_workflows import ResolvedStep, is_workflow, read_workflow
from storage.records.generation.workflow_rows import DrawingPace, StepState, Workflow, WorkflowStep
from storage.records.jobs.jobs import Job, JobFile, JobFileRole, JobKind, JobState
from storage.settings import Settings

_PRIORITIES = {priority.lane: priority for priority in Priority}


class PriceView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Credits: what it costs if everything is drawn, and what was charged for what was."""

    credits: int
    charged: Annotated[int | None, Meta(description="null until it has ended.")]


class GenerationSummary(JobSummary, frozen=True, kw_only=True, rename="camel"):
    """A generation in a list."""

    priority: Priority
    tags: list[str]
    external_id: str | None
    price: Annotated[PriceView | None, Meta(description="null: made before there were prices.")]


class GenerationStepView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A step: where it stands, and what it draws. The last four are null of what a later release has asked for."""

    name: Annotated[str, Meta(examples=["base"])]
    operation: str
    state: StepState
    pictures: Annotated[int, Meta(description="To draw.")]
    drawn: Annotated[int, Meta(description="Stored so far.")]
    backend: Annotated[str | None, Meta(description="What draws it, or drew it.")]
    price: Annotated[int, Meta(description="Credits, if all of its pictures are drawn.")]
    seconds: Annotated[float, Meta(description="What the device worked for it, as far as the backend says.")]
    started_at: datetime | None
    ended_at: datetime | None
    failure: JobFailure | None
    width: int | None
    height: int | None
    scheduler: str | None
    seeds: list[int] | None


class GenerationImageView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A picture of a generation. What earlier releases did not measure is null."""

    name: Annotated[str, Meta(examples=["base-000.png"])]
    step: str | None
    number: Annotated[int | None, Meta(description="In its step, from 0.")]
    seed: int | None
    prompt: Annotated[str | None, Meta(description="With choices made and wildcards replaced.")]
    width: int | None
    height: int | None
    blurhash: str | None
    phash: Annotated[str | None, Meta(description="Perceptual hash: near pictures have near ones.")]
    media_type: str
    size: int
    sha256: str
    url: Annotated[str, Meta(description="The bytes, with a key.")]
    image_url: Annotated[str | None, Meta(description="Signed, without a key, until it expires.")]


class GenerationDetail(JobDetail, frozen=True, kw_only=True, rename="camel"):
    """A generation with everything there is to know of it; `request` is what was asked for."""

    steps: list[GenerationStepView]
    images: Annotated[list[GenerationImageView], Meta(description="Drawn so far, in the order of the steps.")]
    priority: Priority
    tags: list[str]
    external_id: str | None
    metadata: Annotated[dict[str, Any], Meta(description="Your own, as you wrote it.")]
    price: PriceView | None


class WorkflowFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A generation with its rows. `ahead`: how many go before it while it waits; `units_ahead`: the work in them."""

    job: Job
    workflow: Workflow | None
    steps: list[WorkflowStep]
    files: list[JobFile]
    ahead: int | None
    units_ahead: float
    paces: list[DrawingPace]


def read_facts(job: Job) -> Script[WorkflowFacts]:
    """What the database knows of a generation."""
    found, ahead = (yield from workflows.of_jobs([job.id])), None
    workflow = found[0] if found else None
    if job.state is JobState.SUBMITTED:
        lane = Priority.NORMAL.lane if workflow is None else workflow.lane
        ahead = yield from workflows.ahead(job, lane)
    return WorkflowFacts(
        job=job,
        workflow=workflow,
        steps=(yield from workflows.steps_of_jobs([job.id])),
        files=(yield from job_files.files(job.id)),
        ahead=None if ahead is None else ahead.workflows,
        units_ahead=0.0 if ahead is None else ahead.units,
        paces=(yield from workflows.paces()) if job.ended_at is None and workflow is not None else [],
    )


def generation_summary(job: Job, workflow: Workflow | None) -> GenerationSummary:
    """A generation as a list shows it."""
    return GenerationSummary(**summary_fields(job), **_workflow_fields(workflow))


def generation_detail(facts: WorkflowFacts, settings: Settings) -> GenerationDetail:
    """A generation with everything there is to know of it."""
    job = facts.job
    asked = cast(dict[str, Any], job.request["asked"] if is_workflow(job.request) else camelised(job.request))
    drawn = drawn_by_step(facts.files)
    waits = job.ended_at is None and facts.workflow is not None
    seconds = seconds_left(facts.steps, drawn, facts.units_ahead, facts.paces) if waits else None
    resolved = _resolved_steps(job)
    return GenerationDetail(
        **detail_fields(job, asked, facts.ahead, seconds, settings),
        **_workflow_fields(facts.workflow),
        metadata={} if facts.workflow is None else facts.workflow.metadata,
        steps=[_step_view(step, drawn.get(step.name, 0), resolved.get(step.name)) for step in facts.steps],
        images=[image_view(file, settings) for file in pictures_in_order(facts.files, facts.steps)],
    )


def drawn_by_step(files: Sequence[JobFile]) -> dict[str, int]:
    """How many pictures of each step there are."""
    counts: dict[str, int] = {}
    for file in files:
        if file.role is JobFileRole.IMAGE and isinstance(step := file.details.get("step"), str):
            counts[step] = counts.get(step, 0) + 1
    return counts


def pictures_in_order(files: Sequence[JobFile], steps: Sequence[WorkflowStep]) -> list[JobFile]:
    """The pictures among a generation's files: by step, and by number in it."""
    places = {step.name: step.position for step in steps}
    images = [file for file in files if file.role is JobFileRole.IMAGE]
    return sorted(
        images,
        key=lambda file: (
            places.get(str(file.details.get("step")), len(places)),
            cast(int, _typed(file.details, "number", int) or 0),
            file.name,
        ),
    )


def image_view(file: JobFile, settings: Settings) -> GenerationImageView:
    """A picture of a generation."""
    said = file.details
    return GenerationImageView(
        name=file.name,
        step=_typed(said, "step", str),
        number=_typed(said, "number", int),
        seed=_typed(said, "seed", int),
        prompt=_typed(said, "prompt", str),
        width=_typed(said, "width", int),
        height=_typed(said, "height", int),
        blurhash=_typed(said, "blurhash", str),
        phash=_typed(said, "phash", str),
        media_type=file.media_type,
        size=file.size,
        sha256=file.sha256,
        url=f"{links(JobKind.GENERATION, file.job_id).files}/{quote(file.name)}",
        image_url=signed_image(settings.api, file.job_id, file.sha256),
    )


def _typed(said: Mapping[str, object], name: str, kind: type) -> Any:
    value = said.get(name)
    return value if isinstance(value, kind) else None


def _workflow_fields(workflow: Workflow | None) -> dict[str, Any]:
    if workflow is None:
        return {"priority": Priority.NORMAL, "tags": [], "external_id": None, "price": None}
    return {
        "priority": _PRIORITIES.get(workflow.lane, Priority.NORMAL),
        "tags": workflow.tags,
        "external_id": workflow.external_id,
        "price": PriceView(credits=workflow.price, charged=workflow.charged),
    }


def _resolved_steps(job: Job) -> dict[str, ResolvedStep]:
    """What each step draws; nothing of a job that asks for what only a later release knows, which is shown all the
    same."""
    if not is_workflow(job.request):
        return {}
    try:
        return {step.name: step for step in read_workflow(job.request).steps}
    except InvalidRequest:
        return {}


def _step_view(row: WorkflowStep, drawn: int, resolved: ResolvedStep | None) -> GenerationStepView:
    drawing = resolved.drawing if resolved else None
    failure = None
    if row.failure_code is not None:
        failure = JobFailure(code=row.failure_code, reason=row.failure_reason or "")
    return GenerationStepView(
        name=row.name,
        operation=row.operation,
        state=row.state,
        pictures=row.pictures,
        drawn=drawn,
        backend=row.backend,
        price=row.picture_price * row.pictures,
        seconds=round(row.seconds, 3),
        started_at=row.started_at,
        ended_at=row.ended_at,
        failure=failure,
        width=drawing.width if drawing else None,
        height=drawing.height if drawing else None,
        scheduler=scheduler_shown(drawing) if drawing else None,
        seeds=[image.seed for image in drawing.images] if drawing else None,
    )
