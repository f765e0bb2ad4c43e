"""Workflows: submitted, priced, listed, read, changed, cancelled, deleted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.datastructures import State
from litestar.params import FromPath, QueryParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.http.idempotency import IdempotencyKey
from platform_api.http.limits import end_of_page, read_number_cursor
from platform_api.http.links import addresses
from platform_api.orchestration.blob_links import addressing
from platform_api.orchestration.bodies import json_body, large_body, list_of, object_of, record_of
from platform_api.orchestration.orders import ignored_header, priced, shown, submitted
from platform_api.orchestration.refusals import can_return, pending
from platform_api.orchestration.waiting import checked_wait, ended
from platform_api.orchestration.workflow_bodies import PATCH_BODY, TEMPLATE_BODY, UPDATE_BODY, WorkflowUpdate
from platform_api.orchestration.workflow_changes import cancelled, check_tags, tags_of
from storage.errors import InvalidRequest, NotFound
from storage.postgres.connection import Script
from storage.postgres.generation import workflows
from storage.postgres.jobs import jobs
from storage.postgres.orchestration import workflow_pages
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import TERMINAL, Job
from storage.records.orchestration.documents import WorkflowDocument, WorkflowPage
from storage.records.orchestration.json_patch import MAX_OPERATIONS, PatchOperation, patched
from storage.records.orchestration.left_out import UNRATED
from storage.records.orchestration.reading import check_written, read_template
from storage.records.orchestration.rendering import document_of
from storage.records.orchestration.statuses import WorkflowStatus
from storage.request_faults import has_control_characters

_READ, _WRITE = [Requires(Scope.JOBS_READ)], [Requires(Scope.JOBS_WRITE)]
_IN_VAIN = pending(WorkflowDocument, "With `wait`: it has not ended in that time")
MAX_TAKE, DEFAULT_TAKE = 100, 20
MAX_WAIT = 60.0
Wait = Annotated[float, QueryParameter(ge=0, le=MAX_WAIT, description="Seconds to wait for the workflow to end.")]
HideMature = Annotated[
    bool,
    QueryParameter(
        name="hideMatureContent",
        description="Refused when true: nothing is rated here.",
        schema_extra={"enum": [False]},
    ),
]
WorkflowId = FromPath[UUID]


class Workflows(Controller):
    """Generations as workflows of Civitai's orchestration."""

    path = "/consumer/workflows"
    tags = ("Orchestration",)

    @post(
        "/",
        guards=_WRITE,
        responses=can_return(401, 403, 408, 409, 410, 413) | _IN_VAIN,
        operation_class=TEMPLATE_BODY,
        request_max_body_size=None,
        status_code=200,
        summary="Submit or price a workflow",
    )
    async def submit_workflow(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        wait: Wait = 0.0,
        whatif: Annotated[bool, QueryParameter(description="Only price it.")] = False,
        hide_mature: HideMature = False,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[WorkflowDocument]:
        """Commits the workflow; the same `externalId` again is the same workflow. With `wait`: 202 when it has not
        ended by then. What says nothing here is named in X-Ignored-Parameters."""
        seconds = checked_wait(wait, stores.settings.orchestration.max_wait_seconds)
        _check_mature(hide_mature)
        read = await large_body(request, stores, lambda content: read_template(object_of(content)))
        headers = ignored_header(read.ignored)
        if whatif:
            return Response(await priced(read, stores, caller, state), headers=headers)
        job = await submitted(request, read, state, key=idempotency_key, wait=seconds)
        document = await shown(request, stores, caller, job)
        return Response(document, status_code=_status(job, seconds), headers=headers)

    @get("/", guards=_READ, responses=can_return(401, 403), summary="List workflows, newest first")
    async def list_workflows(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        cursor: Annotated[str | None, QueryParameter(max_length=200, description="`next` of the page before.")] = None,
        take: Annotated[int, QueryParameter(ge=1, le=MAX_TAKE, description="Workflows in one page.")] = DEFAULT_TAKE,
        in_tags: Annotated[
            list[str] | None, QueryParameter(name="tags", max_items=10, description="Those that have all of these.")
        ] = None,
        words: Annotated[
            str | None, QueryParameter(name="query", max_length=200, description="What stands in their metadata.")
        ] = None,
        ascending: Annotated[bool, QueryParameter(description="Oldest first.")] = False,
        since: Annotated[datetime | None, QueryParameter(name="fromDate", description="Not before this.")] = None,
        until: Annotated[datetime | None, QueryParameter(name="toDate", description="Not after this.")] = None,
        exclude_failed: Annotated[
            bool, QueryParameter(name="excludeFailed", description="Without failed and cancelled ones.")
        ] = False,
        hide_mature: HideMature = False,
    ) -> WorkflowPage:
        """A page of the caller's workflows."""
        _check_mature(hide_mature)
        _check_texts(tags=in_tags or (), query=(words or "",))
        beyond, where = read_number_cursor(cursor), addresses(request, stores.settings.api)

        def script() -> Script[tuple[list[Job], WorkflowPage]]:
            found = yield from workflow_pages.page(
                caller.account_id,
                beyond=beyond,
                ascending=ascending,
                tags=in_tags or (),
                words=words or None,
                since=_with_zone(since),
                until=_with_zone(until),
                without_failed=exclude_failed,
                limit=take + 1,
            )
            standings = yield from workflow_pages.standings(found[:take])
            address = addressing(where, caller.account_id)
            items = tuple(document_of(standing, address) for standing in standings)
            return found, WorkflowPage(next=end_of_page(found, take, lambda last: (last.sequence,)), items=items)

        return (await stores.database.run(script))[1]

    @get("/{workflow_id:uuid}", guards=_READ, responses=can_return(401, 403, 404) | _IN_VAIN, summary="A workflow")
    async def get_workflow(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        workflow_id: WorkflowId,
        wait: Wait = 0.0,
        hide_mature: HideMature = False,
    ) -> Response[WorkflowDocument]:
        """How it stands, or how it has ended; with `wait`, 202 when it has not by then."""
        seconds = checked_wait(wait, stores.settings.orchestration.max_wait_seconds)
        _check_mature(hide_mature)
        job = await stores.database.run(lambda: workflow_pages.find(workflow_id, caller.account_id))
        job = await ended(stores, state, caller.account_id, job, seconds)
        return Response(await shown(request, stores, caller, job), status_code=_status(job, seconds))

    @put(
        "/{workflow_id:uuid}",
        guards=_WRITE,
        responses=can_return(401, 403, 404, 409, 413),
        operation_class=UPDATE_BODY,
        request_max_body_size=None,
        status_code=204,
        summary="Cancel a workflow, or write on it",
    )
    async def update_workflow(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId
    ) -> None:
        """`status: canceled` stops it: what is drawn stays. Metadata and tags that come replace the old ones."""
        content = await json_body(request)
        update = record_of(content, WorkflowUpdate)
        if update.allow_mature_content is False:
            raise InvalidRequest({"allowMatureContent": UNRATED})
        if update.metadata is not None:
            check_written("metadata", update.metadata)

        def script() -> Script[None]:
            yield from _changed(workflow_id, caller.account_id, update)

        await stores.database.run(script)

    @patch(
        "/{workflow_id:uuid}",
        guards=_WRITE,
        responses=can_return(401, 403, 404, 409, 413),
        operation_class=PATCH_BODY,
        request_max_body_size=None,
        status_code=204,
        summary="Patch a workflow",
    )
    async def patch_workflow(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId
    ) -> None:
        """JSON Patch of `/metadata`, `/tags` and `/status`; all of it, or nothing."""
        content = await json_body(request)
        operations = list_of(content, PatchOperation, MAX_OPERATIONS)

        def script() -> Script[None]:
            row = yield from workflow_pages.hold(workflow_id, caller.account_id)
            before = {"metadata": row.metadata, "tags": row.tags, "status": None}
            after = patched(before, operations)
            if set(after) - set(before):
                raise InvalidRequest({"path": f"there are: {', '.join(f'/{name}' for name in before)}"})
            update = record_of({name: value for name, value in after.items() if value is not None}, WorkflowUpdate)
            whole = msgspec.structs.replace(update, metadata=update.metadata or {}, tags=update.tags or [])
            check_written("metadata", whole.metadata or {})
            yield from _changed(workflow_id, caller.account_id, whole)

        await stores.database.run(script)

    @delete("/{workflow_id:uuid}", guards=_WRITE, responses=can_return(401, 403, 404), summary="Delete a workflow")
    async def delete_workflow(self, stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId) -> None:
        """Cancelled, if it has not ended, and in no list any more; what was drawn is charged."""

        def script() -> Script[None]:
            job = yield from workflow_pages.find(workflow_id, caller.account_id)
            if job.state not in TERMINAL:
                yield from jobs.cancel(workflow_id, caller.account_id)
            if not (yield from workflows.delete(workflow_id, caller.account_id)):
                raise NotFound(f"No workflow {workflow_id}.")

        await stores.database.run(script)


def _changed(workflow_id: UUID, account_id: UUID, update: WorkflowUpdate) -> Script[None]:
    yield from workflow_pages.hold(workflow_id, account_id)
    if update.tags is not None:
        check_tags(update.tags)
    tags = None if update.tags is None else tags_of(update.tags)
    yield from workflows.change(workflow_id, account_id, tags=tags, metadata=update.metadata)
    if update.status is not None:
        if update.status is not WorkflowStatus.CANCELED:
            raise InvalidRequest({"status": f"'{update.status}' cannot be asked for; 'canceled' can"})
        yield from cancelled(workflow_id, account_id)


def _check_mature(hidden: bool) -> None:
    if hidden:
        raise InvalidRequest({"hideMatureContent": UNRATED})


def _check_texts(**parameters: Sequence[str]) -> None:
    """Raises InvalidRequest for a parameter with a control character: Postgres takes no NUL."""
    if faults := {
        name: "must not hold control characters"
        for name, texts in parameters.items()
        if any(has_control_characters(text) for text in texts)
    }:
        raise InvalidRequest(faults)


def _status(job: Job, waited: float) -> int:
    """202 for what was waited for in vain."""
    return 202 if waited and job.state not in TERMINAL else 200


def _with_zone(moment: datetime | None) -> datetime | None:
    """A time without a zone is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
