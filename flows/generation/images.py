"""@flow generate-images: the images that a generation job asks for, from a published model version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from prefect import flow
from prefect.states import State

from flows.jobs.claims import claimed_job, ended_well
from flows.runs.artifacts import ArtifactBoard
from flows.runs.lazy_imports import imported_when_used
from flows.runs.liveness import advanced
from flows.upkeep.retention.retention import tidy_folders
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs
from storage.postgres.metrics import activity
from storage.records.jobs.generation import GenerationRecipe
from storage.records.jobs.jobs import Job
from storage.records.jobs.requirements import refuse_unknown
from storage.records.metrics.activity import Counted, Metric
from storage.settings import load_settings
from storage.stores import open_stores

if TYPE_CHECKING:
    from flows.generation import images_steps as steps
else:
    steps = imported_when_used("flows.generation.images_steps")


# Typed ids are the only parameters: in a free-form one Prefect fills in variables and secrets wherever it finds the key
# `__prefect_kind`, so nothing that people type may be one. No retries: Prefect would run the flow again in the same
# process, and the relay gives the job a new attempt anyhow.
@flow(name="generate-images", persist_result=False)
def generate_images(job_id: UUID, attempt: int) -> State[Any]:
    """Carry out a generation job. Started by the relay; submit with `darkroom generate` or the API.

    Args:
        job_id: The job's id.
        attempt: The number of the attempt; an older one is refused.
    """
    with open_stores(load_settings(), advanced) as stores:
        if (done := ended_well(stores, job_id)) is not None:
            return done
        with claimed_job(stores, job_id, attempt, steps.this_machine(stores.settings)) as job:
            with ArtifactBoard() as board:
                refuse_unknown(job.row.kind, job.row.request)
                recipe = msgspec.convert(job.row.request, GenerationRecipe)
                model = steps.fetch_model(job, recipe.model_version_id)
                steps.draw(job, board, recipe, model)
            # Inside the job's block, so that its lock is held until the end is committed.
            job.run(lambda: succeed(job.id, job.attempt, recipe.model_version_id))
        # Behind the block: whoever waits for the job is not kept waiting by it.
        tidy_folders(stores)
    return job.outcome


def succeed(job_id: UUID, attempt: int, version_id: int) -> Script[Job]:
    """End the job, and with it count a generation of the version. Raises JobLost, JobCancelled."""
    # First, because it refuses an attempt that is not the job's any more; then nothing is counted either.
    ended = yield from jobs.succeed(job_id, attempt, None)
    yield from activity.count_one("generations", Counted.VERSION, version_id, Metric.GENERATION)
    return ended
