"""Training jobs: fine-tunes of a base model on a data set."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

from litestar import Request, Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.headers import request_id
from platform_api.http.idempotency import IdempotencyKey, checked_key
from platform_api.http.json_bodies import strictly
from platform_api.http.limits import PageCursor, PageLimit, end_of_page, read_number_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.jobs.checkpoint_views import CheckpointList, checkpoint_list
from platform_api.jobs.job_views import (
    NOUNS,
    JobDetail,
    JobSummary,
    SubmittedJob,
    detail,
    job_of_kind,
    read_training,
    summary,
)
from platform_api.jobs.jobs import JobRoutes, accept, has_submitted, submit_job
from platform_api.jobs.training_estimates import TrainingEstimate, TrainingPlan, estimate
from storage.postgres.connection import Script
from storage.postgres.jobs import job_files, jobs, submissions
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import Checkpoint, Job, JobKind, JobState, RepeatedStage
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

    @get("/", guards=[Requires(Scope.JOBS_READ)], responses=can_return(401, 403, 422), summary="List, newest first")
    async def list_page(
        self,
        stores: AppStores,
        caller: RequestCaller,
        cursor: PageCursor = None,
        limit: PageLimit = 50,
        in_state: Annotated[JobState | None, QueryParameter(name="state", description="Only these.")] = None,
    ) -> Page[JobSummary]:
        """A page of the caller's jobs."""
        before = read_number_cursor(cursor)
        found = await stores.database.run(
            jobs.list_for_account(
                caller.account_id, before=before, kind=JobKind.TRAINING, state=in_state, limit=limit + 1
            )
        )
        end = end_of_page(found, limit, lambda last: (last.sequence,))
        query = {"limit": limit, "state": in_state}
        return Page(
            items=[summary(job) for job in found[:limit]],
            metadata=page_metadata(f"{API}/{NOUNS[JobKind.TRAINING]}", end, query),
        )

    @get("/{job_id:uuid}", guards=[Requires(Scope.JOBS_READ)], responses=can_return(401, 403, 404), summary="One job")
    async def show(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> JobDetail:
        """State, progress, place in the queue, estimate, and where its runs are."""
        job, ahead, seconds = await stores.database.run(read_training(job_id, caller.account_id))
        return detail(job, ahead, seconds, stores.settings)

    @post(
        "/{job_id:uuid}/retry",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 409, 410, 422, 429),
        status_code=202,
        summary="Try a failed or cancelled job again",
    )
    async def retry(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        job_id: FromPath[UUID],
        step: Annotated[
            int | None,
            QueryParameter(
                ge=1, le=20_000, description="Publish the checkpoint of this step, which `keepEvery` let stay."
            ),
        ] = None,
        stage: Annotated[
            RepeatedStage | None,
            QueryParameter(description="Do this stage again, with what is made from it, and no other that has ended."),
        ] = None,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[SubmittedJob]:
        """A new job with the same recipe, behind what the old one has done: its stages, and its newest checkpoint.

        With `step` it ends at the checkpoint of that step, with `stage` that one is done again: then the old job may
        have succeeded, if the checkpoint of its last step has stayed, or the stage is `fit`.
        """
        key, identity = checked_key(idempotency_key), request_id(request.scope)

        def script() -> Script[tuple[Job, bool]]:
            yield from job_of_kind(job_id, caller.account_id, JobKind.TRAINING)
            return (
                yield from submissions.retry(
                    *(job_id, caller.account_id, stores.settings),
                    step=step,
                    stage=stage,
                    idempotency_key=key,
                    request_id=identity,
                )
            )

        return await accept(stores, script, partial(has_submitted, caller.account_id, key))

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
