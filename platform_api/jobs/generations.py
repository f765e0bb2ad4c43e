"""Generations: images drawn from a published model version."""

from __future__ import annotations

from functools import partial
from typing import Any

from litestar import Request, Response, post
from litestar.params import JSONBody

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.idempotency import IdempotencyKey
from platform_api.http.json_bodies import strictly
from platform_api.http.problems import can_return
from platform_api.jobs.job_views import NOUNS, SubmittedJob
from platform_api.jobs.jobs import JobRoutes, submit_job
from storage.postgres.jobs import submissions
from storage.records.accounts.accounts import Scope
from storage.records.jobs.generation import GenerationRequest
from storage.records.jobs.jobs import JobKind


class Generations(JobRoutes):
    """A prompt in, images out."""

    path = f"/{NOUNS[JobKind.GENERATION]}"
    tags = ("Generations",)
    kind = JobKind.GENERATION

    @post(
        "/",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(GenerationRequest),
        responses=can_return(401, 403, 410, 413, 422, 429),
        status_code=202,
        summary="Submit a generation",
    )
    async def submit(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        data: JSONBody[GenerationRequest],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[SubmittedJob]:
        """Commits the job and returns at once. Image i is drawn with seed + i."""
        submission = partial(submissions.submit_generation, data)
        return await submit_job(request, stores, caller, submission, idempotency_key)
