"""Refusals as clients of Civitai's orchestration read them: our problem, with 400 for what does not pass.

`@civitai/client` keeps the body of a 400 alone, and the reasons of a field are a list there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from http import HTTPStatus
from typing import Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec

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


def _theirs(response: Response[problems.Problem]) -> Response[OrchestrationProblem]:
    problem = response.content
    status = HTTPStatus.BAD_REQUEST if problem.status == 422 else problem.status
    content = OrchestrationProblem(
        type=problem.type,
        title=HTTPStatus(status).phrase,
        status=status,
        detail=problem.detail,
        instance=problem.instance,
        errors={field: [reason] for field, reason in problem.errors.items()},
        error=problem.error,
        code=problem.code,
        request_id=problem.request_id,
    )
    return Response(content, status_code=status, media_type=problems.MEDIA_TYPE, headers=response.headers)


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


@cache
def _documented(status: int) -> ResponseSpec:
    codes = codes_of(status) if status != HTTPStatus.BAD_REQUEST else f"{codes_of(400)}, {codes_of(422)}"
    return ResponseSpec(
        data_container=OrchestrationProblem,
        generate_examples=False,
        description=f"{HTTPStatus(status).phrase}. Codes: {codes}",
        media_type=problems.MEDIA_TYPE,
    )
