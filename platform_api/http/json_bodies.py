"""JSON bodies, read strictly: text is not a number, unknown fields are named, and every wrong field is reported at
once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import msgspec
from litestar import Request

from platform_api.http.problems import MalformedBody
from storage.errors import InvalidRequest
from storage.request_faults import depth_faults, field_faults, readable

MAX_BODY_BYTES = 64 * 1024

LINES = msgspec.Meta(extra={"lines": True})
"""Marks a field whose texts may have lines and tabs."""

Check = Callable[[Request[Any, Any, Any]], Awaitable[None]]


def strictly(kind: type[msgspec.Struct], *, optional: bool = False) -> Check:
    """A check that runs before the handler: the body is JSON and a `kind`, to the letter; nothing, if `optional`.

    The framework alone would take "800" for 800 and report the first wrong field only.
    """

    async def check(request: Request[Any, Any, Any]) -> None:
        body = await request.body()
        if not optional or body not in (b"", b"null"):
            read_strictly(body, kind)

    return check


def read_strictly(body: bytes, kind: type[msgspec.Struct]) -> None:
    """Raises MalformedBody when `body` is no JSON object, InvalidRequest naming every field that is wrong."""
    try:
        content: Any = msgspec.json.decode(body)
    except RecursionError:
        raise MalformedBody("The body is nested too deeply.") from None
    except msgspec.ValidationError as error:
        raise InvalidRequest({"body": readable(str(error))}) from error
    except ValueError as error:
        raise MalformedBody(f"The body is not JSON: {readable(str(error))}.") from error
    if not isinstance(content, dict):
        raise InvalidRequest({"body": "expected a JSON object"})
    members = cast(dict[str, Any], content)
    if faults := depth_faults(members) or field_faults(members, kind):
        raise InvalidRequest({_shown(name): reason for name, reason in faults.items()})
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"body": readable(str(error))}) from error


def _shown(name: str) -> str:
    # The client's own text comes back in the error and in logs: it must be short and printable.
    return name[:100].encode("ascii", "backslashreplace").decode()
