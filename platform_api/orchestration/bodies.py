"""JSON bodies of Civitai's orchestration: larger than ours, since they may hold pictures as text."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar, cast

import msgspec
from litestar import Request

from platform_api.http.json_bodies import MAX_BODY_BYTES
from platform_api.http.problems import BodyTooLarge, MalformedBody, TooSlow
from platform_api.http.request_body import Body
from storage.errors import InvalidRequest, TooManyRequests
from storage.request_faults import field_faults, has_control_characters, is_nested_deeper, readable
from storage.stores import AsyncStores

MAX_BYTES = 12 * 1024 * 1024
MAX_DEPTH = 32
MAX_MEMBERS = 100_000
"""Commas and brackets, also those in texts: so many members make no more than some megabytes of objects."""
_TOO_MANY = f"The body has more than {MAX_BYTES:,} bytes. Send large pictures to POST /v2/consumer/blobs first."
Record = TypeVar("Record", bound=msgspec.Struct)
Read = TypeVar("Read")


async def json_body(request: Request[Any, Any, Any]) -> Any:
    """What a request says, as plain JSON. Raises MalformedBody, BodyTooLarge, TooSlow."""
    body = Body(request, MAX_BODY_BYTES, f"The body is over the limit of {MAX_BODY_BYTES:,} bytes.")
    return _decoded(await _whole(body))


async def large_body(request: Request[Any, Any, Any], stores: AsyncStores, read: Callable[[Any], Read]) -> Read:
    """What `read` makes of a request that may hold pictures; a large one holds one of the account's uploads meanwhile,
    and is read in a thread.

    Raises as `json_body`, TooManyRequests, and what `read` does.
    """
    body = Body(request, MAX_BYTES, _TOO_MANY)
    async with contextlib.AsyncExitStack() as held:
        if body.declared_length is None or body.declared_length > MAX_BODY_BYTES:
            try:
                await held.enter_async_context(request.app.state.uploads.hold(request.state.caller.account_id))
            except TooManyRequests:
                await body.drain()
                raise
        content = await _whole(body)
        if len(content) <= MAX_BODY_BYTES:
            return read(_decoded(content))
        return await stores.pools.images.run(lambda: read(_decoded(content)))


async def _whole(body: Body) -> bytes:
    try:
        body.check_declared_length()
        return b"".join([piece async for piece in body.pieces()])
    except (BodyTooLarge, TooSlow):
        await body.drain()
        raise


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
    # Before a member of it is made: each is an object of Python, and eleven megabytes of "[]," are four million.
    if sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_MEMBERS:
        raise MalformedBody(f"The body has more than {MAX_MEMBERS:,} members, or commas and brackets in its texts.")
    try:
        content: Any = msgspec.json.decode(body)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except (msgspec.DecodeError, ValueError) as error:
        raise MalformedBody(f"The body is not JSON: {readable(str(error))}.") from error
    # Rows and patches copy what a caller writes, member by member.
    if is_nested_deeper(content, MAX_DEPTH):
        raise MalformedBody(f"The body is nested more than {MAX_DEPTH} deep.")
    return content
