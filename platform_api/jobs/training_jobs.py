"""Training jobs: fine-tunes of a base model on a data set."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath, JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.idempotency import IdempotencyKey
from platform_api.http.json_bodies import strictly
from platform_api.http.problems import can_return
from platform_api.jobs.checkpoint_views import CheckpointList, checkpoint_list
from platform_api.jobs.job_views import NOUNS, SubmittedJob, job_of_kind
from platform_api.jobs.jobs import JobRoutes, submit_job
from platform_api.jobs.training_estimates import TrainingEstimate, TrainingPlan, estimate
from storage.postgres.connection import Script
from storage.postgres.jobs import job_files, submissions
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import Checkpoint, Job, JobKind
from storage.records.jobs.training import TrainingRequest


class TrainingJobs(JobRoutes):
    """Photos in, a catalogued model out."""

    path = f"/{NOUNS[JobKind.TRAINING]}"
    tags = ("Training jobs",)
    kind = JobKind.TRAINING

    @post(
        "/",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(TrainingRequest),
        responses=can_return(401, 403, 413, 422, 429),
        status_code=202,
        summary="Submit a fine-tune",
    )
    async def submit(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        data: JSONBody[TrainingRequest],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[SubmittedJob]:
        """Commits the job and returns at once. A field left out takes the base model's own default."""
        submission = partial(submissions.submit_training, data)
        return await submit_job(request, stores, caller, submission, idempotency_key)

    @post(
        "/estimate",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(TrainingPlan),
        responses=can_return(401, 403, 413, 422, 429),
        status_code=200,
        summary="What a fine-tune would be and need",
    )
    async def estimate(
        self, stores: AppStores, caller: RequestCaller, data: JSONBody[TrainingPlan]
    ) -> TrainingEstimate:
        """The request with nothing left out, and an estimate of memory, disk and time. Submits nothing, reads no
        weights and needs no photos."""
        return await estimate(stores, data, caller.account_id)

    @get(
        "/{job_id:uuid}/checkpoints",
        guards=[Requires(Scope.JOBS_READ)],
        responses=can_return(401, 403, 404),
        summary="Checkpoints that there are",
    )
    async def checkpoints(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> CheckpointList:
        """The steps that the job can go on from, or that a retry with `step` can publish, newest first."""

        def script() -> Script[tuple[Job, list[Checkpoint]]]:
            job = yield from job_of_kind(job_id, caller.account_id, self.kind)
            return job, (yield from job_files.checkpoints(job_id))

        job, found = await stores.database.run(script)
        return checkpoint_list(job, found, stores.settings)
