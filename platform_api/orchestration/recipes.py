"""Recipes: one step by its input alone, and its output when it has ended."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, Response, post
from litestar.datastructures import State
from litestar.params import FromPath, QueryParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Caller, Requires
from platform_api.http.idempotency import IdempotencyKey
from platform_api.http.links import addresses
from platform_api.orchestration import sent_pictures
from platform_api.orchestration.blobs import sent_view
from platform_api.orchestration.bodies import large_body, object_of
from platform_api.orchestration.orders import ignored_header, shown, submitted
from platform_api.orchestration.refusals import NotServed, RecipeFailed, can_return, pending
from platform_api.orchestration.workflow_bodies import INPUT_BODY
from storage.errors import ImageRefused, InvalidRequest, NotFound
from storage.postgres.orchestration import workflow_pages
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import TERMINAL, Job, JobState
from storage.records.orchestration.left_out import KNOWN_TYPES, NOT_FOR_THE_WORKFLOW, STEP_TYPES, UNRATED, why_not
from storage.records.orchestration.reading import read_template, step_of
from storage.stores import AsyncStores

UPLOAD = "imageUpload"
_IN_VAIN = pending(dict[str, Any], "It has not ended in the time that a request may wait; `Location` is its workflow")
_FALSE: dict[str, Any] = {"enum": [False]}
_PLACE = "steps[0].input."
_WHATIF = "a recipe returns pictures and has no place for a price; ask POST /v2/consumer/workflows?whatif=true"


class Recipes(Controller):
    """One step at a time."""

    path = "/consumer/recipes"
    tags = ("Orchestration",)

    @post(
        "/{step_type:str}",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 408, 409, 410, 413, 501, 502) | _IN_VAIN,
        operation_class=INPUT_BODY,
        request_max_body_size=None,
        status_code=200,
        summary="Draw by one step's input",
    )
    async def invoke_recipe(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        step_type: FromPath[str],
        whatif: Annotated[
            bool, QueryParameter(description="Refused when true: a workflow can be priced.", schema_extra=_FALSE)
        ] = False,
        ephemeral: Annotated[
            bool, QueryParameter(description="Refused when true: a workflow is always kept.", schema_extra=_FALSE)
        ] = False,
        allow_mature: Annotated[
            bool,
            QueryParameter(
                name="allowMatureContent",
                description="Refused when false: nothing is rated here.",
                schema_extra={"enum": [True]},
            ),
        ] = True,
        experimental: Annotated[bool, QueryParameter(description="Ignored.")] = False,
        idempotency_key: IdempotencyKey = None,
    ) -> Response[dict[str, Any]]:
        """The step's output once its workflow has ended; 202 with what there is, and where the workflow is, when it
        has not in the time that a request may wait. `imageUpload` keeps a picture and returns its blob."""
        _check(step_type, whatif=whatif, ephemeral=ephemeral, allow_mature=allow_mature)
        if step_type == UPLOAD:
            given = await large_body(request, stores, lambda content: content)
            return Response({"blob": await _uploaded(request, given, stores, caller, state)})
        try:
            read = await large_body(
                request, stores, lambda content: read_template(step_of(step_type, object_of(content)))
            )
            wait = stores.settings.orchestration.max_wait_seconds
            job = await submitted(request, read, state, key=idempotency_key, wait=wait)
        except InvalidRequest as error:
            fields = {field.removeprefix(_PLACE): reason for field, reason in error.fields.items()}
            raise InvalidRequest(fields) from error
        _check_drawn(job)
        document = await shown(request, stores, caller, job)
        headers = {**ignored_header(["experimental"] if experimental else []), "Location": _place(job)}
        return Response(document.steps[0].output, status_code=200 if job.state in TERMINAL else 202, headers=headers)


def _check(kind: str, *, whatif: bool, ephemeral: bool, allow_mature: bool) -> None:
    if kind not in (*STEP_TYPES, UPLOAD):
        if kind in KNOWN_TYPES:
            raise NotServed(f"{why_not(kind)}.")
        raise NotFound(f"{why_not(kind)}.")
    faults = {
        **({"whatif": _WHATIF} if whatif else {}),
        **({"ephemeral": NOT_FOR_THE_WORKFLOW["ephemeral"]} if ephemeral else {}),
        **({} if allow_mature else {"allowMatureContent": UNRATED}),
    }
    if faults:
        raise InvalidRequest(faults)


def _check_drawn(job: Job) -> None:
    if job.state is JobState.FAILED:
        raise RecipeFailed(f"Workflow {job.id} has failed: {job.failure_code}: {job.failure_reason}")
    if job.state is JobState.CANCELLED:
        raise RecipeFailed(f"Workflow {job.id} was cancelled.")


def _place(job: Job) -> str:
    return f"/v2/consumer/workflows/{job.id}"


async def _uploaded(
    request: Request[Any, Any, Any], content: Any, stores: AsyncStores, caller: Caller, state: State
) -> Any:
    if not isinstance(content, str):
        raise InvalidRequest({"body": "expected a data URL or Base64, as a JSON text"})
    try:
        async with sent_pictures.intake(stores, caller, state) as taken:
            sha256 = await taken.sha256_of(content)
            await taken.keep()
    except InvalidRequest as error:
        raise InvalidRequest({"body": next(iter(error.fields.values()))}) from error
    except ImageRefused as error:
        raise ImageRefused(error.reason, f"The picture {error}.") from error
    _, sent = await stores.database.run(workflow_pages.sent(caller.account_id, sha256))
    return sent_view(sent, caller.account_id, addresses(request, stores.settings.api))
