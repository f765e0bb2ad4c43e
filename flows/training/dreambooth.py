"""@flow train-dreambooth: a subject's photos in, a catalogued model out.

Every stage may be repeated: a new attempt goes on behind the stages that have ended, in the fit from its newest
checkpoint, and ends with the bytes of one that ran through. So does a retry of the job, also by Prefect's Retry button.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import flow
from prefect.states import State

from flows.jobs.claims import claimed_job, ended_well
from flows.jobs.lifecycle import RunningJob
from flows.runs.artifacts import ArtifactBoard
from flows.runs.lazy_imports import imported_when_used
from flows.runs.liveness import advanced
from flows.upkeep.retention.retention import tidy_folders
from storage.settings import load_settings
from storage.stores import open_stores

if TYPE_CHECKING:
    from flows.training import dreambooth_steps as steps
else:
    steps = imported_when_used("flows.training.dreambooth_steps")


@flow(name="train-dreambooth", persist_result=False)
def train_dreambooth(job_id: UUID, attempt: int) -> State[Any]:
    """Carry out a training job. Started by the relay; submit jobs with `darkroom train` or POST /api/v1/training-jobs.

    Args:
        job_id: The job's id.
        attempt: The number of the attempt; an older one is refused.
    """
    with open_stores(load_settings(), advanced) as stores:
        if (done := ended_well(stores, job_id)) is not None:
            return done
        with claimed_job(stores, job_id, attempt, steps.this_machine(stores.settings)) as job:
            carry_out(job)
        tidy_folders(stores)
    return job.outcome


def carry_out(job: RunningJob) -> None:
    """The stages of a training job: each takes and returns names of bytes, and is passed over if its result is kept."""
    with ArtifactBoard() as board, steps.training_work(job, board) as work, steps.summarised(work) as run:
        steps.link_tracking_run(run)
        prepared = steps.prepare(run)
        class_images = steps.regularize(run, prepared)
        fitted = steps.fit_model(run, prepared, class_images)
        evaluated = steps.evaluate(run, prepared, fitted)
        exported = steps.export(run, fitted)
        steps.publish(run, evaluated, exported)
