"""Runs of workflows in MLflow: one for each that has ended, with its parameters, metrics and pictures.

They are made afterwards, from the rows and the stored pictures: an MLflow that is unavailable delays no picture, and
what a crash left out is made by the next run of the flow, or by `reconcile`.
"""

from __future__ import annotations

import logging
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from uuid import UUID

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME, MLFLOW_SOURCE_NAME, MLFLOW_USER

from flows.jobs.refused_values import send_what_is_taken
from flows.jobs.tracking import MLFLOW_UNAVAILABLE, RETRY_TAG, RUN_STATUS, find_or_create_run, is_refusal
from flows.jobs.tracking_facts import REQUEST_TAG, shortened
from flows.runs.flow_names import DRAW
from flows.runs.light_tracking import FLOW_TAG
from flows.runs.liveness import advanced
from storage.errors import BlobCorrupted, BlobMissing, InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.generation import workflows
from storage.postgres.jobs import job_files, jobs
from storage.records.generation.resolved_workflows import ResolvedStep, is_workflow, read_workflow
from storage.records.generation.scheduler_names import display_name
from storage.records.generation.workflow_rows import Workflow, WorkflowStep
from storage.records.jobs.jobs import Job, JobFile, JobFileRole
from storage.stores import Stores

log = logging.getLogger("darkroom.tracking")

EXPERIMENT = "generation"
LOCK = "generation-tracking"
"""Held by whoever makes these runs: two that look for a job's run at once would make two."""
MAX_PARAMS = 100
"""What MLflow takes in a batch."""
VERSIONS_TAG = "darkroom.model_versions"


class TrackedBatch(NamedTuple):
    """A sentence for each run that was made, and for each that MLflow refuses."""

    made: list[str]
    refused: list[str]


def track_workflows(stores: Stores, client: MlflowClient, passed: set[UUID]) -> TrackedBatch:
    """Make the runs that ended workflows lack, some of them at a time. None while another process makes them.

    passed: those that MLflow refused before, which hold up no others; what it refuses now is added.
    Raises MLFLOW_UNAVAILABLE when MLflow does not respond, StoreFailure.
    """
    batch = TrackedBatch([], [])
    with stores.database.session_lock(LOCK) as held:
        if not held:
            return batch
        for job in stores.database.run(workflows.untracked(passed)):
            advanced()
            try:
                run_id = track_workflow(stores, client, job)
            except MLFLOW_UNAVAILABLE as error:
                if not is_refusal(error):
                    raise
                passed.add(job.id)
                text = (str(error).splitlines() or [type(error).__name__])[0][:300]
                batch.refused.append(f"workflow {job.id} has no tracking run, MLflow refuses it: {text}")
            else:
                batch.made.append(f"workflow {job.id} has tracking run {run_id}")
    return batch


def track_workflow(stores: Stores, client: MlflowClient, job: Job) -> str:
    """The id of an ended workflow's run, found by the job's id or made, filled and ended. Repeating it is harmless.

    Raises MLFLOW_UNAVAILABLE, StoreFailure.
    """
    row, steps, files = stores.database.run(lambda: _facts(job))
    resolved = _resolved(job)
    began, at = _milliseconds(job.started_at), _milliseconds(job.ended_at)
    run_id = find_or_create_run(client, EXPERIMENT, job.id, _tags(job, row, resolved), began)
    params = [Param(name, shortened(value)) for step in resolved for name, value in step_params(step).items()]
    for start in range(0, len(params), MAX_PARAMS):
        send_what_is_taken(client, run_id, job.id, params[start : start + MAX_PARAMS])
    # MLflow appends: what an earlier try sent would stand there twice.
    if not client.get_run(run_id).data.metrics:
        values = workflow_metrics(job, row, steps, files)
        send_what_is_taken(client, run_id, job.id, [Metric(name, value, at, 0) for name, value in values.items()])
    _send_pictures(stores, client, run_id, files)
    client.set_terminated(run_id, RUN_STATUS[job.state], end_time=at)
    stores.database.run(jobs.note_tracking_run(job.id, job.attempt, run_id))
    return run_id


def step_params(step: ResolvedStep) -> dict[str, object]:
    """What a step was asked to draw, each under the step's name."""
    drawing = step.drawing
    plain: dict[str, object] = {
        "operation": drawing.operation.value,
        "model": drawing.model.name or drawing.model.version_id,
        "adapters": ", ".join(f"{one.name or one.version_id}:{one.strength:g}" for one in drawing.adapters),
        "prompt": drawing.images[0].prompt,
        "negative_prompt": drawing.negative_prompt,
        "scheduler": display_name(drawing.scheduler),
        "steps": drawing.steps,
        "guidance_scale": drawing.guidance_scale,
        "guidance_rescale": drawing.guidance_rescale or "",
        "seed": drawing.images[0].seed,
        "size": f"{drawing.width}x{drawing.height}",
        "pictures": step.pictures,
        "strength": drawing.strength if drawing.source or step.image else "",
        "clip_skip": drawing.clip_skip or "",
        "format": drawing.format.value,
        "exact": drawing.exact,
    }
    return {f"{step.name}.{name}": value for name, value in plain.items() if value != ""}


def workflow_metrics(
    job: Job, row: Workflow | None, steps: list[WorkflowStep], files: list[JobFile]
) -> dict[str, float]:
    """Pictures, seconds from the start to the end and for a picture, seconds of devices and in the queue, credits."""
    pictures = sum(file.role is JobFileRole.IMAGE for file in files)
    seconds = _seconds(job.started_at, job.ended_at)
    return {
        "pictures": pictures,
        "seconds": seconds,
        **({"seconds_per_picture": seconds / pictures} if pictures else {}),
        "device_seconds": sum(step.seconds for step in steps),
        "queue_seconds": _seconds(job.submitted_at, job.started_at),
        "price": float((row.charged if row else 0) or 0),
    }


def _facts(job: Job) -> Script[tuple[Workflow | None, list[WorkflowStep], list[JobFile]]]:
    rows = yield from workflows.of_jobs([job.id])
    steps = yield from workflows.steps_of_jobs([job.id])
    return rows[0] if rows else None, steps, (yield from job_files.files(job.id))


def _resolved(job: Job) -> tuple[ResolvedStep, ...]:
    """The steps of a workflow; none of one that this release cannot read, which has failed by that."""
    try:
        return read_workflow(job.request).steps if is_workflow(job.request) else ()
    except InvalidRequest:
        return ()


def _tags(job: Job, row: Workflow | None, steps: tuple[ResolvedStep, ...]) -> dict[str, str]:
    versions = {
        version_id
        for step in steps
        for version_id in (step.drawing.model.version_id, *(one.version_id for one in step.drawing.adapters))
    }
    return {
        MLFLOW_RUN_NAME: f"{steps[0].drawing.model.name if steps else 'workflow'} {str(job.id)[:8]}".strip(),
        MLFLOW_USER: str(job.account_id),
        MLFLOW_SOURCE_NAME: DRAW,
        FLOW_TAG: DRAW,
        "darkroom.version": version("darkroom"),
        VERSIONS_TAG: ",".join(str(one) for one in sorted(versions - {0})),
        **({"darkroom.tags": shortened(", ".join(row.tags))} if row and row.tags else {}),
        **({RETRY_TAG: str(job.retry_of)} if job.retry_of else {}),
        **({REQUEST_TAG: job.request_id} if job.request_id else {}),
    }


def _send_pictures(stores: Stores, client: MlflowClient, run_id: str, files: list[JobFile]) -> None:
    """Every picture as it is stored, under its name: again it replaces itself."""
    with TemporaryDirectory(prefix="pictures-") as folder:
        for file in files:
            if file.role not in (JobFileRole.IMAGE, JobFileRole.GRID):
                continue
            path = Path(folder, file.name)
            try:
                path.write_bytes(stores.blobs.read(file.sha256))
            except (BlobMissing, BlobCorrupted) as error:
                log.warning("tracking run %s lacks %s: %s", run_id, file.name, error.code)
                continue
            client.log_artifact(run_id, str(path), "images")
            path.unlink()
            advanced()


def _seconds(start: datetime | None, end: datetime | None) -> float:
    return max(0.0, (end - start).total_seconds()) if start and end else 0.0


def _milliseconds(moment: datetime | None) -> int:
    return int(moment.timestamp() * 1000) if moment else 0
