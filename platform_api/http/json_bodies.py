"""JSON bodies, read strictly: text is not a number, unknown fields are named, and every wrong field is reported at
once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any, cast, get_args

import msgspec
from litestar import Request

from platform_api.http.problems import MalformedBody, readable
from storage.errors import InvalidRequest

MAX_BODY_BYTES = 64 * 1024

LINES = msgspec.Meta(extra={"lines": True})
"""Marks a field whose texts may have lines and tabs."""
_LINES = dict.fromkeys(map(ord, "\t\r\n"))

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
    fields = _faults(cast(dict[str, Any], content), kind)
    if fields:
        raise InvalidRequest(fields)
    try:
        msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest({"body": readable(str(error))}) from error


def _faults(content: dict[str, Any], kind: type[msgspec.Struct]) -> dict[str, str]:
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    # Each field by itself, because msgspec stops at the first one that is wrong.
    faults = {name: f"there is no such field; there are: {', '.join(known)}" for name in content if name not in known}
    for name, field in known.items():
        if name not in content:
            if field.required:
                faults[name] = "is required"
            continue
        reason = _fault(content[name], field.type)
        if reason:
            faults[name] = reason
    return {_shown(name): reason for name, reason in faults.items()}


def _fault(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return readable(str(error))
    takes_lines = any((meta.extra or {}).get("lines") for meta in _metas(kind))
    if any(has_control_characters(text, lines=takes_lines) for text in _texts(value)):
        return "must not hold control characters"
    return None


def _metas(kind: Any) -> Iterator[msgspec.Meta]:
    """What a field's type says beside its Python type, at any depth of a union."""
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            yield part
        else:
            yield from _metas(part)


def _texts(value: Any) -> Iterator[str]:
    """Every text in a JSON value, also the names of its members."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for name, member in cast(dict[str, Any], value).items():
            yield name
            yield from _texts(member)
    elif isinstance(value, list):
        for member in cast(list[Any], value):
            yield from _texts(member)


def has_control_characters(text: str, *, lines: bool = False) -> bool:
    """Whether a text holds what no store or log line should get: NUL and its kind, lone surrogates.

    With `lines` it may have tabs and ends of lines.
    """
    plain = text.translate(_LINES) if lines else text
    return any(character < " " or character == "\x7f" or "\ud800" <= character <= "\udfff" for character in plain)


def _shown(name: str) -> str:
    # The client's own text comes back in the error and in logs: it must be short and printable.
    return name[:100].encode("ascii", "backslashreplace").decode()
