"""The fields of a training request as forms show them, read from the request itself.

The API's schema, the options of `darkroom train`, its YAML file, the form in Prefect's page and the table in docs/ all
come from `TrainingRequest`, so a field is written once, with its limits, its unit, its default and its description.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec import inspect

from storage.records.jobs.training import TrainingDefaults, TrainingRequest

Kind = type[bool] | type[int] | type[float] | type[str] | type[UUID] | type[StrEnum] | type[list[str]]


@dataclass(frozen=True)
class TrainingField:
    """One field, or one of a field's own. `limits` has ge, gt and le of numbers, min_length and max_length of texts,
    where there are any.

    path: its names in JSON and YAML from the outside in: several for what stands in a field of several.
    optional: nothing may be given; `resolve` then takes the base model's own default, where it has one. `default` is
    None for those, and where the field is `required`. unit: in what a number is counted; empty for what is no number.
    default_text: what holds where nothing is given, in words.
    """

    name: str
    path: tuple[str, ...]
    kind: Kind
    description: str
    required: bool
    optional: bool
    default: Any
    unit: str = ""
    default_text: str = ""
    example: Any = None
    limits: Mapping[str, float | int] = field(default_factory=dict[str, float | int])
    choices: tuple[str, ...] = ()

    @property
    def json_name(self) -> str:
        """Its name in JSON and YAML, with dots for what stands inside another."""
        return ".".join(self.path)

    @property
    def value_text(self) -> str:
        """What may be given: a unit, or what it is in place of a number."""
        names = self.choices or (tuple(self.kind) if issubclass(self.kind, StrEnum) else ())
        if names:
            return f"One of: {', '.join(names)}."
        if self.unit:
            return f"Unit: {self.unit}."
        words: dict[Any, str] = {
            int: "a whole number",
            bool: "true or false",
            UUID: "an id (UUID)",
            list[str]: "a list of texts",
        }
        return f"Value: {words.get(self.kind, 'text')}."

    @property
    def help(self) -> str:
        """The description, then the unit or the kind of value, then the default: what every form shows."""
        default = "Required." if self.required else f"Default: {self.default_text}."
        return f"{self.description} {self.value_text} {default}"


@cache
def training_fields() -> tuple[TrainingField, ...]:
    """Every field of a training request: the required ones first, then in its order."""
    found = tuple(_fields_of(TrainingRequest))
    return tuple(sorted(found, key=lambda one: not one.required))


def nested(values: Mapping[str, Any], fields: tuple[TrainingField, ...] | None = None) -> dict[str, Any]:
    """The request, by the names of its JSON, of values by the fields' own names; None is left out."""
    request: dict[str, Any] = {}
    for one in training_fields() if fields is None else fields:
        if (value := values.get(one.name)) is not None:
            place = request
            for name in one.path[:-1]:
                place = place.setdefault(name, {})
            place[one.path[-1]] = value
    return request


def _fields_of(kind: type[msgspec.Struct], outer: tuple[str, ...] = (), prefix: str = "") -> Iterator[TrainingField]:
    structure = cast(inspect.StructType, inspect.type_info(kind))
    for one in structure.fields:
        inside, schema, extra, optional = _unwrapped(one.type)
        path, name = (*outer, one.encode_name), prefix + one.name
        if isinstance(inside, inspect.StructType):
            yield from _fields_of(inside.cls, path, f"{name}_")
        else:
            yield _field(one, inside, schema, extra, optional, path, name)


def _unwrapped(kind: inspect.Type) -> tuple[inspect.Type, dict[str, Any], dict[str, Any], bool]:
    """The type itself; what is written to its JSON schema, and beside it; and whether it may be nothing."""
    schema: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    optional = False
    # Annotated may stand around the union with None and inside it: two of the one, one of the other.
    for _ in range(3):
        if isinstance(kind, inspect.Metadata):
            schema |= cast(dict[str, Any], kind.extra_json_schema or {})
            extra |= cast(dict[str, Any], kind.extra or {})
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            optional = True
            (kind,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
    return kind, schema, extra, optional


def _field(
    found: inspect.Field,
    kind: inspect.Type,
    schema: Mapping[str, Any],
    extra: Mapping[str, Any],
    optional: bool,
    path: tuple[str, ...],
    name: str,
) -> TrainingField:
    limits = {
        limit: value
        for limit in ("ge", "gt", "le", "min_length", "max_length")
        if (value := cast(float | int | None, getattr(kind, limit, None))) is not None
    }
    choices = tuple(str(value) for value in kind.values) if isinstance(kind, inspect.LiteralType) else ()
    default = None if found.default is msgspec.NODEFAULT else found.default
    return TrainingField(
        name=name,
        path=path,
        kind=_python_type(kind),
        description=str(schema.get("description", "")),
        required=found.required,
        optional=optional,
        default=default,
        unit=str(extra.get("unit", "")),
        default_text=_default_text(name, default, extra),
        example=next(iter(schema.get("examples", ())), None),
        limits=limits,
        choices=choices,
    )


def _default_text(name: str, default: Any, extra: Mapping[str, Any]) -> str:
    if "default" in extra:
        return str(extra["default"])
    if default is not None:
        return str(default)
    if name not in TrainingDefaults.__struct_fields__:
        return ""
    value = getattr(TrainingDefaults(), name)
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return f"the base's, else {shown}"


def _python_type(kind: inspect.Type) -> Kind:
    match kind:
        case inspect.BoolType():
            return bool
        case inspect.IntType():
            return int
        case inspect.FloatType():
            return float
        case inspect.UUIDType():
            return UUID
        case inspect.EnumType():
            return cast(type[StrEnum], kind.cls)
        case inspect.StrType() | inspect.LiteralType():
            return str
        case inspect.VarTupleType():
            return list[str]
        case _:
            raise TypeError(f"A training request has a field of {type(kind).__name__}: say here how forms show it.")
