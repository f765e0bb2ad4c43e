"""A training request as a YAML file that explains itself: each field with what it does, its unit and its default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from textwrap import wrap
from typing import Any, cast

from storage.records.jobs.training_fields import TrainingField, training_fields

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9 _./*-]*[A-Za-z0-9*]|[A-Za-z]")
# What some reader of YAML takes for a truth value or for nothing.
_MISREAD = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_HEAD = """\
# A Darkroom training request. Fields in lines that begin with # are not set; the values there are what the base
# model and the preset say, or examples where they say nothing.
# Use it with:  darkroom train PHOTOS --config FILE
# Command-line options override this file, and --set FIELD=VALUE overrides both."""


def config_file(request: Mapping[str, Any], meant: Mapping[str, Any] | None = None) -> str:
    """The request as YAML; fields that it does not have stand as comments, with their value in `meant` if it is there:
    the request with nothing left out."""
    return "\n".join([_HEAD, *_lines(request, meant or {})]) + "\n"


def yaml_value(value: Any) -> str:
    """A plain value or a list on one line, as YAML and JSON both read it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _MISREAD:
        return value
    # repr has every digit of a number that is needed to read the same one back.
    return repr(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def _lines(request: Mapping[str, Any], meant: Mapping[str, Any]) -> Iterator[str]:
    outer: tuple[str, ...] = ()
    for field in training_fields():
        yield ""
        inside = field.path[:-1]
        if inside and inside != outer:
            yield f"{inside[-1]}:"
        outer = inside
        yield from _field(field, request, meant, "  " * len(inside))


def _field(field: TrainingField, request: Mapping[str, Any], meant: Mapping[str, Any], indent: str) -> Iterator[str]:
    for line in wrap(field.help, WIDTH):
        yield f"{indent}# {line}"
    name = field.path[-1]
    if (value := _value(field, request)) is not None:
        yield f"{indent}{name}: {yaml_value(value)}"
        return
    value = _value(field, meant)
    yield f"{indent}# {name}: {yaml_value(_example(field) if value is None else value)}"


def _value(field: TrainingField, request: Mapping[str, Any]) -> Any:
    value: Any = request
    for name in field.path:
        value = cast(Mapping[str, Any], value).get(name) if isinstance(value, Mapping) else None
    return value


def _example(field: TrainingField) -> Any:
    if field.example is not None:
        return field.example
    names = field.choices or tuple(str(name) for name in getattr(field.kind, "__members__", {}).values())
    return True if field.kind is bool else next(iter(names), "...")
