"""What is wrong with a request's fields, all of them at once: for the API's bodies and for files of requests alike.

msgspec alone stops at the first field that is wrong, and names neither a unit nor the field that was meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, cast, get_args, get_origin

import msgspec

_WORDS = {
    "null": "nothing",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "named fields",
}
MAX_LISTED = 12
"""Known names that a refusal lists as a whole, and unknown ones that are compared with them."""
MAX_ALIKE = 4
MAX_LEVELS = 32
"""Lists and objects inside each other in a field's value: what is stored is read back by other programs too."""
MAX_PLACES = 64
"""Records of a list whose faults are named by their place; behind them the first fault of the list is."""


def field_faults(content: Mapping[str, Any], kind: type[msgspec.Struct], outer: str = "") -> dict[str, str]:
    """A reason for each field of `content` that is no field of `kind`, or not such a value; and for each one missing.

    Names are those of the JSON, with dots for what stands inside another field.
    """
    known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    strangers = [name for name in content if name not in known]
    # Of the first ones alone: a body may have thousands, each compared with every name there is.
    peers: Mapping[str, str] = getattr(kind, "peer_names", {})
    faults = {outer + name: unknown_name(name, list(known), peers) for name in strangers[:MAX_LISTED]}
    faults |= {outer + name: "there is no such field" for name in strangers[MAX_LISTED:]}
    for name, field in known.items():
        if name not in content:
            if field.required:
                faults[outer + name] = "is required"
            continue
        value, inside, listed = content[name], record_of(field.type), listed_record(field.type)
        if inside is not None and isinstance(value, dict):
            faults |= field_faults(cast(dict[str, Any], value), inside, f"{outer}{name}.")
        elif listed is not None and isinstance(value, list):
            faults |= _faults_of_list(cast(list[Any], value), field.type, listed, f"{outer}{name}")
        elif reason := _fault(value, field.type):
            faults[outer + name] = reason
    return faults


def _faults_of_list(values: list[Any], kind: Any, inside: type[msgspec.Struct], name: str) -> dict[str, str]:
    """What is wrong with the records of a list, each named by its place: `workflow[1].steps`; else with the list."""
    faults: dict[str, str] = {}
    for place, value in enumerate(values[:MAX_PLACES]):
        if isinstance(value, dict):
            faults |= field_faults(cast(dict[str, Any], value), inside, f"{name}[{place}].")
    if not faults and (reason := _refusal(values, kind) or _hidden_characters(values[MAX_PLACES:], inside)):
        faults[name] = reason
    return faults


def depth_faults(content: Mapping[str, Any]) -> dict[str, str]:
    """A reason for each field of `content` whose value has more than MAX_LEVELS lists and objects inside each other.

    Asked before anything else walks through the value.
    """
    reason = f"has more than {MAX_LEVELS} lists and objects inside each other"
    return {name: reason for name, value in content.items() if is_nested_deeper(value, MAX_LEVELS)}


def unknown_name(name: str, known: Sequence[str], peers: Mapping[str, str] = MappingProxyType({})) -> str:
    """That there is no field of this name, and which one is nearest; all of them where they are few, the most alike
    where they are many and none is near. `peers` has what others mean by a name."""
    if _plain(name) in peers:
        return f"there is no such field; {peers[_plain(name)]}"
    nearest = nearest_name(name, known)
    meant = f"; did you mean {nearest}?" if nearest else ""
    if len(known) <= MAX_LISTED:
        return f"there is no such field{meant or ';'} there are: {', '.join(known)}"
    if nearest:
        return f"there is no such field{meant}"
    plain = {_plain(one): one for one in known}
    alike = [plain[one] for one in get_close_matches(_plain(name), plain, n=MAX_ALIKE, cutoff=0.0)]
    return f"there is no such field; of {len(known)} fields the most alike are: {', '.join(alike)}"


def nearest_name(name: str, known: Sequence[str]) -> str | None:
    """The known name that was most likely meant, if any: case, `_` and `-` do not count."""
    plain = {_plain(one): one for one in known}
    return next((plain[found] for found in get_close_matches(_plain(name), plain, n=1, cutoff=0.7)), None)


def readable(message: str) -> str:
    """A validator's message as a reason: what was expected, without the validator's own type names and backticks."""
    text = message.split(" - at ")[0].replace("`", "")
    for theirs, ours in _WORDS.items():
        text = re.sub(rf"(Expected |got |\| ){theirs}\b", rf"\g<1>{ours}", text)
    text = text.replace(" | ", " or ")
    return text[:1].lower() + text[1:]


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _fault(value: Any, kind: Any) -> str | None:
    return _refusal(value, kind) or _hidden_characters(value, kind)


def _refusal(value: Any, kind: Any) -> str | None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        return readable(str(error)) + _advice(value, kind)
    return None


def _hidden_characters(value: Any, kind: Any) -> str | None:
    takes_lines = any((meta.extra or {}).get("lines") for meta in metas_of(kind))
    if any(has_control_characters(text, lines=takes_lines) for text in _texts(value)):
        return "must not hold control characters"
    return None


def _advice(value: Any, kind: Any) -> str:
    """In what the field counts, and a value that it takes; of a name that is none, the nearest one."""
    names = [str(name) for name in _names(kind)]
    if names:
        nearest = nearest_name(value, names) if isinstance(value, str) else None
        meant = f"; did you mean {nearest}?" if nearest else ";"
        return f"{meant} known are: {', '.join(names)}"
    metas = list(metas_of(kind))
    unit = next((str(meta.extra["unit"]) for meta in metas if meta.extra and "unit" in meta.extra), "")
    example = next((meta.examples[0] for meta in metas if meta.examples), None)
    parts: list[str] = []
    if unit:
        # Most texts in place of a number are a number with its unit: 512px, 5m.
        parts.append(f"unit: {unit}" + ("; write the number alone" if isinstance(value, str) else ""))
    if example is not None:
        parts.append(f"for example {json.dumps(example)}")
    return f" ({', '.join(parts)})" if parts else ""


def _names(kind: Any) -> Iterator[Any]:
    """The values of an enumeration or a Literal in a field's type."""
    for part in (kind, *get_args(kind)):
        if isinstance(part, type) and hasattr(part, "__members__"):
            yield from cast(Any, part)
        elif isinstance(part, str) and part is not kind:
            yield part
        elif part is not kind and get_args(part):
            yield from _names(part)


def record_of(kind: Any) -> type[msgspec.Struct] | None:
    """The record that a field holds, if it holds one of one kind."""
    found = [part for part in (kind, *get_args(kind)) if isinstance(part, type) and issubclass(part, msgspec.Struct)]
    return found[0] if len(found) == 1 else None


def listed_record(kind: Any) -> type[msgspec.Struct] | None:
    """The record that a field holds a list of, if it does."""
    if get_origin(kind) in (list, tuple):
        return record_of(kind)
    return next((found for part in get_args(kind) if (found := listed_record(part))), None)


def metas_of(kind: Any) -> Iterator[msgspec.Meta]:
    """What a field's type says beside its Python type, at any depth of a union."""
    for part in get_args(kind):
        if isinstance(part, msgspec.Meta):
            yield part
        else:
            yield from metas_of(part)


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


_CONTROLS = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_CONTROLS_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def has_control_characters(text: str, *, lines: bool = False) -> bool:
    """Whether a text holds what no store or log line should get: NUL and its kind, lone surrogates.

    With `lines` it may have tabs and ends of lines.
    """
    # Nothing of the kind is printable, and this is much the quicker look: texts may be pictures of 10 MB.
    return not text.isprintable() and bool((_CONTROLS_BUT_LINES if lines else _CONTROLS).search(text))


def is_nested_deeper(content: Any, deepest: int) -> bool:
    """Whether lists and objects of a JSON value stand in each other more than so many times. It does not recurse."""
    level: list[Any] = [content]
    for _ in range(deepest):
        level = [inner for one in level for inner in _inside(one)]
    return any(isinstance(one, dict | list) for one in level)


def _inside(one: Any) -> Iterable[Any]:
    if isinstance(one, dict):
        return cast(dict[str, Any], one).values()
    return cast(list[Any], one) if isinstance(one, list) else ()
