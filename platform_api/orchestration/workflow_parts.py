"""Parts of a workflow: its steps, and its tags."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from litestar import Controller, Request, delete, get, patch, post, put
from litestar.params import FromPath

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Requires
from platform_api.orchestration.bodies import json_body, list_of, object_of, record_of, text_of
from platform_api.orchestration.orders import shown
from platform_api.orchestration.refusals import can_return
from platform_api.orchestration.workflow_bodies import PATCH_BODY, STEP_BODY, TAG_BODY, StepUpdate
from platform_api.orchestration.workflow_changes import check_tags
from platform_api.orchestration.workflows import WorkflowId
from storage.errors import InvalidRequest, NotFound
from storage.postgres.connection import Script
from storage.postgres.generation import workflows
from storage.postgres.orchestration import workflow_pages
from storage.records.accounts.accounts import Scope
from storage.records.generation.workflow_rows import WorkflowStep
from storage.records.orchestration.documents import StepDocument
from storage.records.orchestration.json_patch import MAX_OPERATIONS, PatchOperation, patched
from storage.records.orchestration.reading import TEMPLATE_KEY, check_written
from storage.records.orchestration.rendering import own_metadata
from storage.records.orchestration.templates import MAX_TAG_LENGTH, Written

_READ, _WRITE = [Requires(Scope.JOBS_READ)], [Requires(Scope.JOBS_WRITE)]


class WorkflowParts(Controller):
    """Steps and tags of a workflow."""

    path = "/consumer/workflows/{workflow_id:uuid}"
    tags = ("Orchestration",)

    @get("/steps/{step_name:str}", guards=_READ, responses=can_return(401, 403, 404), summary="A step")
    async def get_step(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        workflow_id: WorkflowId,
        step_name: FromPath[str],
    ) -> StepDocument:
        """The step as its workflow shows it."""
        job = await stores.database.run(lambda: workflow_pages.find(workflow_id, caller.account_id))
        document = await shown(request, stores, caller, job)
        for step in document.steps:
            if step.name == step_name:
                return step
        raise NotFound(f"Workflow {workflow_id} has no step {step_name[:64]!a}.")

    @put(
        "/steps/{step_name:str}",
        guards=_WRITE,
        responses=can_return(401, 403, 404, 413),
        operation_class=STEP_BODY,
        request_max_body_size=None,
        status_code=204,
        summary="Write on a step",
    )
    async def update_step(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        workflow_id: WorkflowId,
        step_name: FromPath[str],
    ) -> None:
        """The metadata replaces the old one."""
        content = await json_body(request)
        update = record_of(content, StepUpdate)
        check_written("metadata", update.metadata)

        def script() -> Script[None]:
            row = yield from workflow_pages.hold_step(workflow_id, caller.account_id, step_name)
            yield from _write(row, update.metadata)

        await stores.database.run(script)

    @patch(
        "/steps/{step_name:str}",
        guards=_WRITE,
        responses=can_return(401, 403, 404, 413),
        operation_class=PATCH_BODY,
        request_max_body_size=None,
        status_code=204,
        summary="Patch a step",
    )
    async def patch_step(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        workflow_id: WorkflowId,
        step_name: FromPath[str],
    ) -> None:
        """JSON Patch of `/metadata`; all of it, or nothing."""
        content = await json_body(request)
        operations = list_of(content, PatchOperation, MAX_OPERATIONS)

        def script() -> Script[None]:
            row = yield from workflow_pages.hold_step(workflow_id, caller.account_id, step_name)
            after = patched({"metadata": own_metadata(row.metadata)}, operations)
            update = record_of(object_of(after), StepUpdate)
            check_written("metadata", update.metadata)
            yield from _write(row, update.metadata)

        await stores.database.run(script)

    @post(
        "/tags",
        guards=_WRITE,
        responses=can_return(401, 403, 404, 413),
        operation_class=TAG_BODY,
        request_max_body_size=None,
        status_code=204,
        summary="Tag a workflow",
    )
    async def add_tag(
        self, request: Request[Any, Any, Any], stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId
    ) -> None:
        """The body is the tag, a text as JSON. One that is there already stays."""
        content = await json_body(request)
        tag = text_of(content, MAX_TAG_LENGTH)

        def script() -> Script[None]:
            row = yield from workflow_pages.hold(workflow_id, caller.account_id)
            check_tags([*row.tags, tag])
            yield from workflows.change(workflow_id, caller.account_id, tags=[*row.tags, tag])

        await stores.database.run(script)

    @delete("/tags", guards=_WRITE, responses=can_return(401, 403, 404), summary="Take all tags off")
    async def remove_tags(self, stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId) -> None:
        """The workflow has no tag any more."""

        def script() -> Script[None]:
            yield from workflow_pages.hold(workflow_id, caller.account_id)
            yield from workflows.change(workflow_id, caller.account_id, tags=[])

        await stores.database.run(script)

    @delete("/tags/{tag:path}", guards=_WRITE, responses=can_return(401, 403, 404), summary="Take a tag off")
    async def remove_tag(
        self, stores: AppStores, caller: RequestCaller, workflow_id: WorkflowId, tag: FromPath[PurePosixPath]
    ) -> None:
        """404 for a tag that it does not have."""
        wanted = str(tag).removeprefix("/")

        def script() -> Script[None]:
            row = yield from workflow_pages.hold(workflow_id, caller.account_id)
            if wanted not in row.tags:
                raise NotFound(f"Workflow {workflow_id} has no such tag.")
            left = [one for one in row.tags if one != wanted]
            yield from workflows.change(workflow_id, caller.account_id, tags=left)

        await stores.database.run(script)


def _write(row: WorkflowStep, metadata: Written) -> Script[None]:
    template = {TEMPLATE_KEY: row.metadata[TEMPLATE_KEY]} if TEMPLATE_KEY in row.metadata else {}
    if (yield from workflows.change_step(row.job_id, row.name, {**metadata, **template})) is None:
        raise InvalidRequest({"metadata": "the step is gone"})
