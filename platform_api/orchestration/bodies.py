"""JSON bodies of Civitai's orchestration: larger than ours, since they may hold pictures as text."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any, TypeVar, cast

import msgspec
from litestar import Request

from platform_api.http.json_bodies import MAX_BODY_BYTES
from platform_api.http.problems import BodyTooLarge, MalformedBody, TooSlow
from platform_api.http.request_body import Body
from storage.errors import InvalidRequest, TooManyRequests
from storage.request_faults import field_faults, has_control_characters, readable

MAX_BYTES = 12 * 1024 * 1024
MAX_DEPTH = 32
_TOO_MANY = f"The body has more than {MAX_BYTES:,} bytes. Send large pictures to POST /v2/consumer/blobs first."
Record = TypeVar("Record", bound=msgspec.Struct)


@contextlib.asynccontextmanager
async def json_body(request: Request[Any, Any, Any], *, large: bool = False) -> AsyncGenerator[Any]:
    """What a request says, as plain JSON. `large`: it may hold pictures; it then holds one of the account's uploads.

    Raises MalformedBody, BodyTooLarge, TooSlow, TooManyRequests.
    """
    async with contextlib.AsyncExitStack() as held:
        limit = MAX_BYTES if large else MAX_BODY_BYTES
        body = Body(request, limit, _TOO_MANY if large else f"The body is over the limit of {limit:,} bytes.")
        try:
            body.check_declared_length()
            if body.declared_length is None or body.declared_length > MAX_BODY_BYTES:
                await held.enter_async_context(request.app.state.uploads.hold(request.state.caller.account_id))
            content = b"".join([piece async for piece in body.pieces()])
        except (BodyTooLarge, TooSlow, TooManyRequests):
            await body.drain()
            raise
        yield _decoded(content)


def object_of(content: Any) -> dict[str, Any]:
    """Raises InvalidRequest for what is no JSON object."""
    if not isinstance(content, dict):
        raise InvalidRequest({"body": "expected a JSON object"})
    return cast(dict[str, Any], content)


def record_of(content: Any, kind: type[Record]) -> Record:
    """A body as a record, to the letter. Raises InvalidRequest naming every field that is wrong."""
    plain = object_of(content)
    if faults := field_faults(plain, kind):
        raise InvalidRequest(faults)
    return _converted(plain, kind)


def _converted(content: Any, kind: Any) -> Any:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"body": readable(str(error))}) from error


def list_of(content: Any, kind: type[Record], longest: int) -> list[Record]:
    """A body as a list of records. Raises InvalidRequest."""
    if not isinstance(content, list):
        raise InvalidRequest({"body": "expected a JSON list"})
    items = cast(list[Any], content)
    if len(items) > longest:
        raise InvalidRequest({"body": f"at most {longest} of them at once"})
    return _converted(items, list[kind])


def text_of(content: Any, longest: int) -> str:
    """A body that is a text. Raises InvalidRequest."""
    if not isinstance(content, str) or not 1 <= len(content) <= longest or has_control_characters(content):
        raise InvalidRequest({"body": f"expected a text of 1 to {longest:,} characters, as JSON"})
    return content


def _decoded(body: bytes) -> Any:
    try:
        content: Any = msgspec.json.decode(body)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedBody(f"The body is not JSON: {readable(str(error))}.") from error
    # Rows and patches copy what a caller writes, member by member.
    _check_depth(content)
    return content


def _check_depth(content: Any) -> None:
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return
    raise MalformedBody(f"The body is nested more than {MAX_DEPTH} deep.")


def _inside(one: Any) -> list[Any]:
    if isinstance(one, dict):
        return list(cast(dict[str, Any], one).values())
    return cast(list[Any], one) if isinstance(one, list) else []
