"""Refusals as clients of Civitai's orchestration read them: our problem, with 400 for what does not pass.

`@civitai/client` keeps the body of a 400 alone, and the reasons of a field are a list there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from http import HTTPStatus
from itertools import islice
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from platform_api.http import problems
from platform_api.http.problem_list import codes_of
from storage import errors


class NotServed(problems.ProtocolRefusal):
    """A route or a wish of Civitai's orchestration that this platform does not serve."""

    code = "not_served"
    status = HTTPStatus.NOT_IMPLEMENTED


class RecipeFailed(problems.ProtocolRefusal):
    """A workflow that was waited for did not make its pictures."""

    code = "drawing_failed"
    status = HTTPStatus.BAD_GATEWAY


class OrchestrationProblem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An error, with the reasons of each field at fault."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: dict[str, list[str]]
    error: str
    code: str
    request_id: str


MAX_FAULTS, MAX_NAME, MAX_DETAIL = 50, 200, 4000


def _theirs(response: Response[problems.Problem]) -> Response[OrchestrationProblem]:
    content = _translated(response.content)
    return Response(content, status_code=content.status, media_type=problems.MEDIA_TYPE, headers=response.headers)


def _translated(problem: problems.Problem) -> OrchestrationProblem:
    status = HTTPStatus.BAD_REQUEST if problem.status == 422 else problem.status
    return OrchestrationProblem(
        type=problem.type,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=_short(problem.detail),
        instance=problem.instance,
        errors=_first(problem.errors),
        error=_short(problem.error),
        code=problem.code,
        request_id=problem.request_id,
    )


def _short(text: str) -> str:
    return text if len(text) <= MAX_DETAIL else f"{text[:MAX_DETAIL]}..."


def _first(faults: Mapping[str, str]) -> dict[str, list[str]]:
    """The faults that a person would read: a body may have tens of thousands, each under a name of megabytes."""
    found = {field[:MAX_NAME]: [reason[:MAX_DETAIL]] for field, reason in islice(faults.items(), MAX_FAULTS)}
    if len(faults) > MAX_FAULTS:
        found["body"] = [f"{len(faults) - MAX_FAULTS:,} more fields are wrong"]
    return found


def _named(request: Request[Any, Any, Any], error: errors.DarkroomError) -> Response[OrchestrationProblem]:
    return _theirs(problems.handle_named_error(request, error))


def _http(request: Request[Any, Any, Any], error: HTTPException) -> Response[OrchestrationProblem]:
    return _theirs(problems.handle_http_exception(request, error))


def _unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[OrchestrationProblem]:
    return _theirs(problems.handle_unexpected_error(request, error))


HANDLERS: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[OrchestrationProblem]]] = {
    errors.DarkroomError: _named,
    HTTPException: _http,
    Exception: _unexpected,
}


def can_return(*statuses: int) -> dict[int, ResponseSpec]:
    """The documentation of a route's refusals."""
    return {status: _documented(status) for status in dict.fromkeys((400, *statuses, 429, 503, 507))}


def pending(document: type[Any], description: str) -> dict[int, ResponseSpec]:
    """The documentation of a 202: what was waited for in vain."""
    return {202: ResponseSpec(document, generate_examples=False, description=description)}


@cache
def _documented(status: int) -> ResponseSpec:
    codes = codes_of(status) if status != HTTPStatus.BAD_REQUEST else f"{codes_of(400)}, {codes_of(422)}"
    return ResponseSpec(
        data_container=OrchestrationProblem,
        generate_examples=False,
        description=f"{HTTPStatus(status).phrase}. Codes: {codes}",
        media_type=problems.MEDIA_TYPE,
        examples=[Example(summary=codes_of(status), value=msgspec.to_builtins(_example(status)))],
    )


def _example(status: int) -> OrchestrationProblem:
    ours = HTTPStatus.UNPROCESSABLE_ENTITY if status == HTTPStatus.BAD_REQUEST else status
    for own, detail in (
        (NotServed, "'videoGen' is nothing that this platform does."),
        (RecipeFailed, "Workflow 5b7d0c3a was cancelled."),
    ):
        if own.status == status:
            return _translated(
                problems.Problem(
                    type=f"/docs#problem-{own.code}",
                    title=HTTPStatus(status).phrase,
                    status=status,
                    detail=detail,
                    instance="/v2/...",
                    errors={},
                    error=detail,
                    code=own.code,
                    request_id="5b7d0c3a9f1e",
                )
            )
    example = next(iter(problems.can_return(ours)[ours].examples or ()))
    return msgspec.structs.replace(_translated(msgspec.convert(example.value, problems.Problem)), instance="/v2/...")
