"""JSON Patch (RFC 6902) on a plain JSON object. What is patched is copied first; a patch is whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

from storage.errors import InvalidRequest
from storage.request_faults import is_nested_deeper

MAX_OPERATIONS = 100
MAX_BYTES = 64 * 1024
"""Of the document, after each operation: a hundred copies of a thing into itself would be 2^100 of it."""
MAX_DEPTH = 32
"""Of lists and objects in each other: each operation copies them, and so does whoever reads the document."""


class PatchOperation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"from_": "from"}):
    """One operation. Paths are JSON Pointers (RFC 6901)."""

    op: str
    path: Annotated[str, Meta(max_length=1000)]
    from_: Annotated[str, Meta(max_length=1000)] | None = None
    value: Any = msgspec.UNSET


def patched(document: dict[str, Any], operations: Sequence[PatchOperation]) -> dict[str, Any]:
    """The document after the operations. Raises InvalidRequest, naming the operation, for one that cannot be done."""
    if is_nested_deeper(document, MAX_DEPTH):
        raise InvalidRequest({"path": f"what is there is nested more than {MAX_DEPTH} deep; replace it as a whole"})
    result: Any = copy.deepcopy(document)
    for place, operation in enumerate(operations):
        try:
            result = _applied(result, operation)
            if len(msgspec.json.encode(result)) > MAX_BYTES:
                raise _Refused(f"makes the document longer than {MAX_BYTES:,} bytes")
            if is_nested_deeper(result, MAX_DEPTH):
                raise _Refused(f"nests the document more than {MAX_DEPTH} deep")
        except _Refused as refusal:
            raise InvalidRequest({f"[{place}]": str(refusal)}) from refusal
    if not isinstance(result, dict):
        raise InvalidRequest({"path": "what is patched must stay an object"})
    return cast(dict[str, Any], result)


class _Refused(Exception):
    """Why an operation cannot be done."""


def _applied(document: Any, operation: PatchOperation) -> Any:
    match operation.op:
        case "add":
            return _added(document, _parts(operation.path), _value(operation))
        case "replace":
            _found(document, _parts(operation.path), operation.path)
            return _replaced(document, _parts(operation.path), _value(operation))
        case "remove":
            return _removed(document, operation.path)
        case "test":
            if not _equal(_found(document, _parts(operation.path), operation.path), _value(operation)):
                raise _Refused(f"the value at '{operation.path}' is another")
            return document
        case "copy" | "move":
            if operation.from_ is None:
                raise _Refused(f"'{operation.op}' needs `from`")
            value = copy.deepcopy(_found(document, _parts(operation.from_), operation.from_))
            if operation.op == "move":
                if operation.path.startswith(f"{operation.from_}/"):
                    raise _Refused(f"'{operation.from_}' cannot move into itself")
                document = _removed(document, operation.from_)
            return _added(document, _parts(operation.path), value)
        case _:
            raise _Refused(f"'{operation.op[:20]}' is no operation; there are: add, remove, replace, move, copy, test")


def _value(operation: PatchOperation) -> Any:
    if operation.value is msgspec.UNSET:
        raise _Refused(f"'{operation.op}' needs `value`")
    return copy.deepcopy(operation.value)


def _parts(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise _Refused(f"'{path[:100]}' is no JSON Pointer: it begins with '/'")
    return [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:]]


def _found(document: Any, parts: Sequence[str], path: str) -> Any:
    here = document
    for part in parts:
        match here:
            case dict():
                members = cast(dict[str, Any], here)
                if part not in members:
                    raise _Refused(f"there is nothing at '{path[:100]}'")
                here = members[part]
            case list():
                items = cast(list[Any], here)
                here = items[_index(part, len(items) - 1, path)]
            case _:
                raise _Refused(f"there is nothing at '{path[:100]}'")
    return here


def _index(part: str, last: int, path: str) -> int:
    # A leading zero is no index (RFC 6901, 4).
    if not (part.isascii() and part.isdigit() and len(part) < 8 and part == str(int(part)) and int(part) <= last):
        raise _Refused(f"'{part[:20]}' is no place in the list at '{path[:100]}'")
    return int(part)


def _added(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    holder: Any = _found(document, parts[:-1], "/".join(["", *parts[:-1]]))
    match holder:
        case dict():
            holder[parts[-1]] = value
        case list():
            items = cast(list[Any], holder)
            items.insert(len(items) if parts[-1] == "-" else _index(parts[-1], len(items), "/".join(parts)), value)
        case _:
            raise _Refused(f"nothing can be put under '{'/'.join(parts[:-1])[:100]}'")
    return document


def _replaced(document: Any, parts: list[str], value: Any) -> Any:
    if not parts:
        return value
    holder: Any = _found(document, parts[:-1], "")
    holder[int(parts[-1]) if isinstance(holder, list) else parts[-1]] = value
    return document


def _removed(document: Any, path: str) -> Any:
    parts = _parts(path)
    if not parts:
        raise _Refused("the whole document cannot be removed")
    _found(document, parts, path)
    holder: Any = _found(document, parts[:-1], path)
    del holder[int(parts[-1]) if isinstance(holder, list) else parts[-1]]
    return document


def _equal(one: Any, other: Any) -> bool:
    # True == 1 in Python, and not in JSON.
    return msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted")
