"""The one error body, and the table from error type to status.

Every error of every route, also of an unknown address, is `application/problem+json` (RFC 9457) with a reason for each
field at fault. `error` repeats `detail` for clients that only know that name. No stack, SQL, path or class name leaves.

Not Litestar's problem-details plugin: the errors that it turns into problems have neither `instance` nor `requestId`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, ClassVar, cast

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from platform_api.http.headers import REFUSED, request_id
from platform_api.http.problem_list import codes_of
from storage import errors
from storage.request_faults import readable

LOG = logging.getLogger("darkroom.api")
MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 5

STATUSES: Mapping[type[errors.DarkroomError], HTTPStatus] = {
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Gone: HTTPStatus.GONE,
    errors.Refused: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.InvalidCursor: HTTPStatus.BAD_REQUEST,
    errors.CursorExpired: HTTPStatus.BAD_REQUEST,
    errors.WrongState: HTTPStatus.CONFLICT,
    errors.InUse: HTTPStatus.CONFLICT,
    errors.UploadBusy: HTTPStatus.LOCKED,
    errors.AccessDenied: HTTPStatus.FORBIDDEN,
    errors.Unauthenticated: HTTPStatus.UNAUTHORIZED,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.StoreUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StatementTimeout: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreFailure: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.SealBroken: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.DiskFull: HTTPStatus.INSUFFICIENT_STORAGE,
    errors.FreeSpaceLow: HTTPStatus.INSUFFICIENT_STORAGE,
}
"""The nearest ancestor counts. What is not here is our own fault: 500, with the reason in the log alone."""


class MalformedBody(errors.Refused):
    """A body that is not the JSON it claims to be."""

    code = "malformed_body"


class BodyTooLarge(errors.Refused):
    """A body over the route's limit."""

    code = "body_too_large"


class TooSlow(errors.Refused):
    """A client that stopped sending."""

    code = "too_slow"


class UnsupportedMediaType(errors.Refused):
    """A body of a kind that the route does not take."""

    code = "unsupported_media_type"


class TooManyPages(errors.Refused):
    """A numbered page that lies too deep."""

    code = "too_many_pages"


class RangeNotSatisfiable(errors.Refused):
    """A range that begins behind the end. `size` is how many bytes there are."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        self.size = size
        super().__init__(f"The range asks for bytes behind the end: the file has {size:,} bytes.")


class ProtocolRefusal(errors.Refused):
    """A refusal to which a protocol on top of HTTP gives its own status and headers."""

    code = "protocol"
    status: ClassVar[int] = HTTPStatus.BAD_REQUEST

    @property
    def headers(self) -> dict[str, str]:
        """What the response carries besides its body."""
        return {}


_API_STATUSES: Mapping[type[errors.DarkroomError], HTTPStatus] = {
    MalformedBody: HTTPStatus.BAD_REQUEST,
    TooManyPages: HTTPStatus.BAD_REQUEST,
    BodyTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
    UnsupportedMediaType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    RangeNotSatisfiable: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
}


class Problem(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An error as clients read it."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: dict[str, str]
    error: str
    code: str
    request_id: str


class Refusals(Counter[str]):
    """How many requests were refused since the start, by reason: `image_refused/animated`, `invalid_request`, ..."""


def status_of(error: errors.DarkroomError) -> int:
    """The status that an error means: its own, or that of its nearest ancestor in the table."""
    if isinstance(error, ProtocolRefusal):
        return error.status
    for kind in type(error).__mro__:
        status = _API_STATUSES.get(kind) or STATUSES.get(kind)
        if status is not None:
            return status
    return HTTPStatus.INTERNAL_SERVER_ERROR


def handle_named_error(request: Request[Any, Any, Any], error: errors.DarkroomError) -> Response[Problem]:
    """The response to an error that we raise on purpose."""
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return handle_unexpected_error(request, error)
    refused = cast(Refusals, request.app.state.refusals)
    reason = f"{error.code}/{error.reason}" if isinstance(error, errors.UploadRefused) else error.code
    refused[reason] += 1
    request.scope["state"][REFUSED] = reason
    fields = error.fields if isinstance(error, errors.InvalidRequest) else {}
    return _problem_response(request, status, error.code, str(error), fields, _headers(error))


def handle_http_exception(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    """The response to what the framework refuses by itself: unknown addresses, methods, malformed parameters."""
    if isinstance(error, ValidationException):
        return handle_named_error(request, errors.InvalidRequest(_fields(error)))
    status = HTTPStatus(error.status_code)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return handle_unexpected_error(request, error)
    cast(Refusals, request.app.state.refusals)[f"http_{status.value}"] += 1
    code, detail = _FRAMEWORK.get(status, (status.phrase.lower().replace(" ", "_"), f"{status.phrase}."))
    return _problem_response(request, status, code, detail, {}, dict(error.headers or {}))


def handle_unexpected_error(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    """The response to a fault of our own: nothing of it is shown, all of it is logged."""
    LOG.error(
        "failed %s %s", request.method, cast(Any, request.scope).get("path_template", "unmatched"), exc_info=error
    )
    detail = "Something failed on our side and was logged. Try again; if it stays, give the operator the requestId."
    return _problem_response(request, HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", detail, {}, {})


HANDLERS: dict[int | type[Exception], Callable[[Request[Any, Any, Any], Any], Response[Problem]]] = {
    errors.DarkroomError: handle_named_error,
    HTTPException: handle_http_exception,
    Exception: handle_unexpected_error,
}

_FRAMEWORK: Mapping[HTTPStatus, tuple[str, str]] = {
    HTTPStatus.BAD_REQUEST: ("malformed_request", "The request cannot be read. See /docs for what this address takes."),
    HTTPStatus.NOT_FOUND: ("not_found", "Nothing is at this address. See /docs for those there are."),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "This address does not take that method. The Allow header names those it takes.",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: ("body_too_large", "The body is too large for this address."),
}


def _problem_response(
    request: Request[Any, Any, Any],
    status: int,
    code: str,
    detail: str,
    fields: Mapping[str, str],
    headers: Mapping[str, str],
) -> Response[Problem]:
    problem = Problem(
        type=f"/docs#problem-{code}",
        title=_phrase(status),
        status=int(status),
        detail=detail,
        instance=_path(request),
        errors=dict(fields),
        error=detail,
        code=code,
        request_id=request_id(request.scope),
    )
    return Response(problem, status_code=int(status), media_type=MEDIA_TYPE, headers=dict(headers))


def _phrase(status: int) -> str:
    return "Checksum Mismatch" if status == 460 else HTTPStatus(status).phrase  # 460 is tus's alone


def _path(request: Request[Any, Any, Any]) -> str:
    """The address without its query: that may hold a signature. What a log line or JSON cannot hold is escaped."""
    return request.scope["path"].encode("ascii", "backslashreplace").decode()[:300]


def _headers(error: errors.DarkroomError) -> dict[str, str]:
    match error:
        case errors.TooManyRequests():
            return {"Retry-After": str(error.retry_after)}
        # Before StoreUnavailable, which it is: run again already, it is soon free. A StatementTimeout is none, and has
        # no Retry-After: the same statement would take as long again.
        case errors.TransactionConflict():
            return {"Retry-After": "1"}
        case errors.StoreUnavailable() | errors.SealBroken():
            return {"Retry-After": str(RETRY_SECONDS)}
        case errors.Unauthenticated():
            # RFC 9110 asks for it with each 401.
            return {"WWW-Authenticate": 'Bearer realm="darkroom"'}
        case ProtocolRefusal():
            return error.headers
        case RangeNotSatisfiable():
            return {"Content-Range": f"bytes */{error.size}"}
        case _:
            return {}


def _fields(error: ValidationException) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in cast(list[dict[str, str]], error.extra if isinstance(error.extra, list) else []):
        # A query called state cannot be an argument of that name in Litestar, so its handlers call it in_state.
        name = item.get("key", "request").strip(".").removeprefix("in_")
        found[name or "request"] = readable(item.get("message", "is not valid"))
    return found or {"request": "is not valid"}


_EXAMPLES: Mapping[int, tuple[str, str, str]] = {
    400: ("malformed_body", "The body is not JSON: trailing comma at byte 17.", "a body or header that cannot be read"),
    401: ("unauthenticated", "No API key. Send: Authorization: Bearer drk_...", "no key, or one that does not work"),
    403: ("scope_missing", "The key lacks the scope 'jobs:write'.", "not allowed with this key, account or link"),
    404: ("not_found", "No job 6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11.", "nothing of that name that is yours"),
    408: ("too_slow", "No bytes came for 30 s.", "the client stopped sending"),
    409: ("wrong_state", "Job 6f0c1e0a-... has already ended: succeeded.", "not possible in the present state"),
    410: ("gone", "Model 7 is gone: deleted by its owner.", "it was there and was deleted or taken down"),
    412: ("tus_version", "This server speaks tus 1.0.0.", "another version of the tus protocol"),
    413: ("body_too_large", "The body is over the limit of 65,536 bytes.", "the body is too large"),
    415: ("unsupported_media_type", "Send multipart/form-data or application/zip.", "a body of another kind"),
    416: ("range_not_satisfiable", "The file has 1,024 bytes.", "the range begins behind the end"),
    422: ("invalid_request", "steps: expected a whole number >= 1", "one or more fields do not pass"),
    423: ("upload_busy", "Another request sends bytes of upload 0b9e....", "another request is sending bytes of it"),
    429: (
        "too_many_requests",
        "1000 unfinished jobs; the limit is 1000.",
        "too many; Retry-After says how many seconds to wait",
    ),
    460: ("checksum_mismatch", "The bytes are not those of Upload-Checksum.", "the bytes came changed; none is kept"),
    503: (
        "postgres_unavailable",
        "Postgres does not respond.",
        "a store does not respond, is too busy, or another request was in the way; Retry-After says when to try again, "
        "and is left out where the same request would fail again",
    ),
    507: (
        "free_space_low",
        "31.5 MiB are free for the uploads; 1 GiB must stay free. Nothing new is taken until there is room.",
        "no room left; the operator has to make some",
    ),
}


def can_return(*statuses: int) -> dict[int, ResponseSpec]:
    """The OpenAPI documentation of a route's refusals, each with an example."""
    return {status: _documented(status) for status in dict.fromkeys((400, *statuses, 429, 503, 507))}


@dataclass
class _Refusal(ResponseSpec):
    """The documentation of one status, shared by all routes: nobody changes it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> _Refusal:
        # Litestar copies every route with its documentation as often as it registers it: half a second of a start.
        return self


@cache
def _documented(status: int) -> ResponseSpec:
    code, detail, description = _EXAMPLES[status]
    problem = Problem(
        type=f"/docs#problem-{code}",
        title=_phrase(status),
        status=status,
        detail=detail,
        instance="/api/v1/...",
        errors={"steps": "expected a whole number >= 1"} if status == 422 else {},
        error=detail,
        code=code,
        request_id="5b7d0c3a9f1e",
    )
    return _Refusal(
        data_container=Problem,
        generate_examples=False,
        description=f"{description[:1].upper()}{description[1:]}. Codes: {codes_of(status)}",
        media_type=MEDIA_TYPE,
        examples=[Example(summary=code, value=msgspec.to_builtins(problem))],
    )
