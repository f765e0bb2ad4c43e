"""From a job with its rows and files to a document of Civitai's orchestration. Nothing here asks a store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from storage.records.generation.drawings import Drawing, Operation
from storage.records.generation.resolved_workflows import ResolvedStep, ResolvedWorkflow, read_workflow
from storage.records.generation.workflow_rows import StepState, Workflow, WorkflowStep
from storage.records.jobs.jobs import TERMINAL, Job, JobFile, JobState
from storage.records.orchestration.blob_names import DrawnBlob, file_name
from storage.records.orchestration.documents import (
    Cost,
    ImageBlob,
    QueuePosition,
    StepDocument,
    StepJob,
    WorkflowDocument,
)
from storage.records.orchestration.reading import TEMPLATE_KEY
from storage.records.orchestration.statuses import WorkflowStatus, step_statuses, workflow_status

Address = Callable[[JobFile], tuple[str | None, datetime | None]]
"""Where the bytes of a picture are without a key, and until when."""
_UNSUPPORTED = QueuePosition(support="unsupported")
UNKNOWN = QueuePosition(support="unavailable")


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is known of a workflow at one moment. `files` are its pictures."""

    job: Job
    workflow: Workflow
    steps: tuple[WorkflowStep, ...]
    files: tuple[JobFile, ...]
    queue: QueuePosition = UNKNOWN


class CallerNotes(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller wrote on a workflow that was only priced."""

    tags: list[str]
    metadata: dict[str, Any]
    step_metadata: tuple[dict[str, Any], ...]


def queue_position(before: int, seconds_before: float | None, seconds: float | None, now: datetime) -> QueuePosition:
    """A place in the queue, and when it is one's turn as far as paces are known."""
    start = None if seconds_before is None else now + timedelta(seconds=seconds_before)
    end = None if start is None or seconds is None else start + timedelta(seconds=seconds)
    return QueuePosition(support="available", preceding_jobs=before, start_at=start, complete_at=end)


def document_of(standing: Standing, address: Address) -> WorkflowDocument:
    """The document of a workflow."""
    job, row = standing.job, standing.workflow
    resolved = read_workflow(job.request)
    states = [step.state for step in standing.steps]
    total = row.price if row.charged is None else row.charged
    return WorkflowDocument(
        id=str(job.id),
        created_at=job.submitted_at,
        started_at=job.started_at,
        completed_at=job.ended_at,
        status=workflow_status(job.state, states),
        metadata=row.metadata,
        tags=row.tags,
        steps=tuple(_steps(standing, resolved, states, address)),
        cost=_cost(total),
        external_id=row.external_id,
    )


def priced_document(resolved: ResolvedWorkflow, written: CallerNotes, now: datetime) -> WorkflowDocument:
    """The document of a workflow that nobody submitted: what it would cost, and what would be drawn."""
    steps = [
        _step(step, metadata, resolved, ())
        for step, metadata in zip(resolved.steps, written.step_metadata, strict=True)
    ]
    return WorkflowDocument(
        id=None,
        created_at=now,
        started_at=None,
        completed_at=None,
        status=WorkflowStatus.UNASSIGNED,
        metadata=written.metadata,
        tags=written.tags,
        steps=tuple(steps),
        cost=_cost(resolved.price),
        external_id=None,
    )


def job_id_of(workflow: UUID, step: str) -> str:
    """The id of a step's job."""
    return f"{workflow}-{step}"


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What the caller wrote on a step, without the template that is kept beside it."""
    return {name: value for name, value in metadata.items() if name != TEMPLATE_KEY}


def with_template(metadata: Mapping[str, Any], kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a step's row keeps: the caller's own, and the template that it came with."""
    return {**metadata, TEMPLATE_KEY: {"$type": kind, "input": dict(given)}}


def _cost(total: int) -> Cost:
    return Cost(base=total, factors={}, fixed={}, fees={}, total=total)


def _steps(
    standing: Standing, resolved: ResolvedWorkflow, states: list[StepState], address: Address
) -> list[StepDocument]:
    job = standing.job
    found: list[StepDocument] = []
    for step, row, status in zip(resolved.steps, standing.steps, step_statuses(job.state, states), strict=True):
        blobs = _blobs(job.id, step, standing.files, address)
        drawn = sum(blob.available for blob in blobs)
        rate = _rate(job, row, drawn, status)
        one = StepJob(
            id=job_id_of(job.id, step.name),
            status=status,
            started_at=row.started_at,
            completed_at=row.ended_at,
            queue_position=standing.queue if job.state is JobState.SUBMITTED else _UNSUPPORTED,
            cost=row.picture_price * (drawn if row.state in _STEPS_ENDED else row.pictures),
            estimated_progress_rate=rate,
        )
        made = _step(step, row.metadata, resolved, blobs)
        failure = [row.failure_reason] if row.failure_reason else None
        output = made.output | {"errors": failure} if failure and "images" in made.output else made.output
        found.append(
            msgspec.structs.replace(
                made,
                status=status,
                started_at=row.started_at,
                completed_at=row.ended_at,
                jobs=(one,),
                estimated_progress_rate=rate,
                output=output,
            )
        )
    return found


_STEPS_ENDED = frozenset({StepState.SUCCEEDED, StepState.FAILED, StepState.CANCELLED})


def _rate(job: Job, row: WorkflowStep, drawn: int, status: WorkflowStatus) -> float | None:
    """How much of a step is done; null before it begins and when it has ended, as Civitai's."""
    if status is not WorkflowStatus.PROCESSING or job.state in TERMINAL:
        return None
    rate = drawn / row.pictures if row.pictures else 0.0
    progress = job.progress
    if progress is not None and progress.phase == row.name and progress.total:
        rate = max(rate, progress.step / progress.total)
    return round(min(rate, 1.0), 4)


def _blobs(job_id: UUID, step: ResolvedStep, files: Sequence[JobFile], address: Address) -> tuple[ImageBlob, ...]:
    drawing, there = step.drawing, {file.details.get("number"): file for file in files if _of(file, step)}
    found: list[ImageBlob] = []
    for number in range(step.pictures):
        file = there.get(number)
        name = file_name(step.name, number, drawing.format) if file is None else file.name
        url, expires = (None, None) if file is None else address(file)
        found.append(
            ImageBlob(
                id=DrawnBlob(job_id=job_id, name=name).id,
                available=file is not None,
                width=drawing.width,
                height=drawing.height,
                url=url,
                url_expires_at=expires,
                job_id=job_id_of(job_id, step.name),
            )
        )
    return tuple(found)


def _of(file: JobFile, step: ResolvedStep) -> bool:
    return file.details.get("step") == step.name


def _step(
    step: ResolvedStep, metadata: Mapping[str, Any], resolved: ResolvedWorkflow, blobs: tuple[ImageBlob, ...]
) -> StepDocument:
    """A step as it was asked for, before anything is known of it."""
    template = metadata.get(TEMPLATE_KEY) or _template(step)
    one = template["$type"] == "imageUpscaler"
    output = {"blob": blobs[0] if blobs else None} if one else {"images": blobs}
    return StepDocument(
        kind=template["$type"],
        name=step.name,
        priority=resolved.priority,
        status=WorkflowStatus.UNASSIGNED,
        started_at=None,
        completed_at=None,
        metadata=own_metadata(metadata),
        # The seed that was drawn where none was asked for, so that a client can ask for the same again.
        input=template["input"] if one else {**template["input"], "seed": step.drawing.images[0].seed},
        output=output,
        jobs=(
            StepJob(
                id="",
                status=WorkflowStatus.UNASSIGNED,
                started_at=None,
                completed_at=None,
                queue_position=UNKNOWN,
                cost=step.picture_price * step.pictures,
                estimated_progress_rate=None,
            ),
        ),
        estimated_progress_rate=None,
    )


def _template(step: ResolvedStep) -> dict[str, Any]:
    """A step that came by another way, as if it had come by this one."""
    drawing = step.drawing
    picture = drawing.source or (None if step.image is None else _reference(step))
    if drawing.operation is Operation.UPSCALE:
        return {"$type": "imageUpscaler", "input": {"image": picture}}
    given = {
        "quantity": step.pictures,
        "batchSize": 1,
        "model": _air_of(drawing),
        "additionalNetworks": {one.air: {"strength": one.strength} for one in drawing.adapters},
        "prompt": drawing.images[0].prompt,
        "negativePrompt": drawing.negative_prompt,
        "scheduler": drawing.scheduler.name,
        "steps": drawing.steps,
        "cfgScale": drawing.guidance_scale,
        "width": drawing.width,
        "height": drawing.height,
        "clipSkip": drawing.clip_skip,
    }
    if picture is not None:
        given |= {"sourceImage": picture, "sourceImageDenoiseStrenght": drawing.strength}
    return {"$type": "textToImage", "input": given}


def _air_of(drawing: Drawing) -> str:
    """A base model is no version, and has no AIR; its name says which it is."""
    return drawing.model.air or drawing.model.name


def _reference(step: ResolvedStep) -> dict[str, str] | None:
    image = step.image
    return None if image is None else {"$ref": image.step, "path": f"output.images[{image.image}].url"}
