"""Generations: pictures drawn by workflows of steps."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Schema
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.generation.generation_views import (
    GenerationDetail,
    GenerationSummary,
    WorkflowFacts,
    generation_detail,
    generation_summary,
    read_facts,
)
from platform_api.generation.workflow_estimates import WorkflowPrice, price_of
from platform_api.http.headers import request_id
from platform_api.http.idempotency import IdempotencyKey, checked_key, fresh_seed
from platform_api.http.json_bodies import strictly
from platform_api.http.limits import MOMENT_SCHEMA, PageCursor, PageLimit, end_of_page, read_moment, read_number_cursor
from platform_api.http.links import API
from platform_api.http.pages import Page, page_metadata
from platform_api.http.problems import can_return
from platform_api.http.query_parameters import PLAIN_TEXT, check_texts
from platform_api.jobs.job_views import NOUNS, SubmittedJob, job_of_kind
from platform_api.jobs.jobs import JobRoutes, accept, has_submitted, submit_job
from storage.errors import NotFound, WrongState
from storage.postgres.connection import Script
from storage.postgres.generation import workflow_submissions, workflows
from storage.records.accounts.accounts import Scope
from storage.records.generation.step_requests import GenerationChanges, WorkflowRequest
from storage.records.generation.workflow_rows import Workflow
from storage.records.jobs.jobs import TERMINAL, Job, JobKind, JobState

MAX_BODY_BYTES = 1024 * 1024
"""Of a workflow, whose steps may each have prompts of 10,000 characters."""
TagFilter = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=200)]] | None,
    QueryParameter(
        name="tag",
        max_items=10,
        description="Only those with this tag; repeated: with all of them.",
        schema_extra={"items": Schema(type=OpenAPIType.STRING, min_length=1, max_length=200, pattern=PLAIN_TEXT)},
    ),
]
Since = Annotated[
    str | None,
    QueryParameter(
        description="Only those submitted at this time or later, with an offset.", schema_extra=MOMENT_SCHEMA
    ),
]
Until = Annotated[
    str | None,
    QueryParameter(description="Only those submitted before this time, with an offset.", schema_extra=MOMENT_SCHEMA),
]


class Generations(JobRoutes):
    """Prompts in, pictures out."""

    path = f"/{NOUNS[JobKind.GENERATION]}"
    tags = ("Generations",)
    kind = JobKind.GENERATION

    @post(
        "/",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(WorkflowRequest),
        request_max_body_size=MAX_BODY_BYTES,
        responses=can_return(401, 403, 410, 413, 422, 429),
        status_code=202,
        summary="Submit a generation",
    )
    async def submit(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        data: JSONBody[WorkflowRequest],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[SubmittedJob]:
        """Commits one step, or a `workflow` of several, and returns at once.

        Picture i of a step is drawn with its seed + i. A later step goes on from a picture of an earlier one by
        `{"$ref": "base", "image": 0}`. The same `externalId`, or Idempotency-Key, again gets the same response.
        """
        submission = partial(workflow_submissions.submit_workflow, data)
        key, account_id = checked_key(idempotency_key), caller.account_id

        def repeats() -> Script[bool]:
            if data.external_id is None:
                return (yield from has_submitted(account_id, key))
            asked = workflow_submissions.hash_of_request(data)
            return (yield from workflows.named(account_id, data.external_id, asked)) is not None

        return await submit_job(request, stores, caller, submission, idempotency_key, repeats)

    @post(
        "/price",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(WorkflowRequest),
        request_max_body_size=MAX_BODY_BYTES,
        responses=can_return(401, 403, 410, 413, 422),
        status_code=200,
        summary="What a generation would cost",
    )
    async def price(self, stores: AppStores, caller: RequestCaller, data: JSONBody[WorkflowRequest]) -> WorkflowPrice:
        """Credits, rough time, and what each step would draw. Submits nothing."""

        def script() -> Script[WorkflowPrice]:
            prices = workflow_submissions.price_list(stores.settings.generation)
            resolved = yield from workflow_submissions.resolve_workflow(data, caller.account_id, prices, fresh_seed())
            return price_of(resolved, (yield from workflows.paces()))

        return await stores.database.run(script)

    @get("/", guards=[Requires(Scope.JOBS_READ)], responses=can_return(401, 403, 422), summary="List, newest first")
    async def list_page(
        self,
        stores: AppStores,
        caller: RequestCaller,
        cursor: PageCursor = None,
        limit: PageLimit = 50,
        in_state: Annotated[JobState | None, QueryParameter(name="state", description="Only these.")] = None,
        tag: TagFilter = None,
        since: Since = None,
        until: Until = None,
    ) -> Page[GenerationSummary]:
        """A page of the caller's generations, without those that were deleted."""
        before = read_number_cursor(cursor)
        check_texts("tag", tag or ())
        begin, end_before = read_moment("since", since), read_moment("until", until)

        def script() -> Script[tuple[list[Job], list[Workflow]]]:
            found = yield from workflows.list_for_account(
                caller.account_id,
                before=before,
                state=in_state,
                tags=tag or (),
                since=begin,
                until=end_before,
                limit=limit + 1,
            )
            return found, (yield from workflows.of_jobs([job.id for job in found[:limit]]))

        found, rows = await stores.database.run(script)
        of_job = {row.job_id: row for row in rows}
        query = {"limit": limit, "state": in_state, "tag": tag, "since": since, "until": until}
        end = end_of_page(found, limit, lambda last: (last.sequence,))
        return Page(
            items=[generation_summary(job, of_job.get(job.id)) for job in found[:limit]],
            metadata=page_metadata(f"{API}/{NOUNS[self.kind]}", end, query),
        )

    @get(
        "/{job_id:uuid}",
        guards=[Requires(Scope.JOBS_READ)],
        responses=can_return(401, 403, 404),
        summary="One generation",
    )
    async def show(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> GenerationDetail:
        """State, steps, pictures so far, place in the queue, estimate and price."""

        def script() -> Script[WorkflowFacts]:
            return (yield from read_facts((yield from job_of_kind(job_id, caller.account_id, self.kind))))

        return generation_detail(await stores.database.run(script), stores.settings)

    @post(
        "/{job_id:uuid}/retry",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 409, 410, 422, 429),
        status_code=202,
        summary="Draw a failed or cancelled generation again",
    )
    async def retry(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        job_id: FromPath[UUID],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[SubmittedJob]:
        """A new generation with the same steps, seeds and tags, from its first step, and without `externalId`."""
        key, identity = checked_key(idempotency_key), request_id(request.scope)

        def script() -> Script[tuple[Job, bool]]:
            yield from job_of_kind(job_id, caller.account_id, self.kind)
            return (
                yield from workflow_submissions.retry_workflow(
                    job_id, caller.account_id, stores.settings, idempotency_key=key, request_id=identity
                )
            )

        return await accept(stores, script, partial(has_submitted, caller.account_id, key))

    @patch(
        "/{job_id:uuid}",
        guards=[Requires(Scope.JOBS_WRITE)],
        before_request=strictly(GenerationChanges),
        responses=can_return(401, 403, 404, 409, 413, 422),
        summary="Change a generation's tags or metadata",
    )
    async def change(
        self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID], data: JSONBody[GenerationChanges]
    ) -> GenerationSummary:
        """What is left out stays; nothing is drawn differently."""
        tags = None if data.tags is msgspec.UNSET else data.tags
        metadata = None if data.metadata is msgspec.UNSET else data.metadata

        def script() -> Script[GenerationSummary]:
            job = yield from job_of_kind(job_id, caller.account_id, self.kind)
            row = yield from workflows.change(job_id, caller.account_id, tags=tags, metadata=metadata)
            return generation_summary(job, _with_row(job_id, row))

        return await stores.database.run(script)

    @delete(
        "/{job_id:uuid}",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 409),
        summary="Take a generation out of lists",
    )
    async def remove(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> None:
        """It is in no list any more. Its address still shows it, and its pictures stay; `DELETE .../files` deletes
        those. While it has not ended: 409."""

        def script() -> Script[None]:
            job = yield from job_of_kind(job_id, caller.account_id, self.kind)
            if job.state not in TERMINAL:
                raise WrongState(f"Job {job_id} is {job.state}. Cancel it first: POST .../{job_id}/cancel")
            deleted = yield from workflows.delete(job_id, caller.account_id)
            _with_row(job_id, deleted or None)

        await stores.database.run(script)

    @get(
        "/{job_id:uuid}/preview",
        guards=[Requires(Scope.JOBS_READ)],
        media_type="image/jpeg",
        responses={
            200: ResponseSpec(bytes, generate_examples=False, description="The preview", media_type="image/jpeg"),
            **can_return(401, 403, 404),
        },
        summary="How the picture being drawn looks so far",
    )
    async def preview(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> Response[bytes]:
        """The newest preview, a JPEG. 404 while there is none: before the first, and soon after the last."""
        job = await stores.database.run(job_of_kind(job_id, caller.account_id, self.kind))
        content = None if job.state in TERMINAL else await stores.progress.preview(job_id)
        if content is None:
            raise NotFound(f"Job {job_id} has no preview at the moment.")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": "no-store"})


def _with_row(job_id: UUID, row: Any) -> Any:
    """A row that was written. Raises WrongState for a generation that has none."""
    if row is None:
        raise WrongState(f"Job {job_id} was made by an earlier release and has no tags, metadata or place of its own.")
    return row
