"""The fields of a training request as forms show them, read from the request itself.

The API's schema, the options of `darkroom train` and the form in Prefect's page all come from `TrainingRequest`, so a
field is written once, with its limits and its description.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, cast
from uuid import UUID

import msgspec
from msgspec import inspect

from storage.records.jobs.training import TrainingRequest


@dataclass(frozen=True)
class TrainingField:
    """One field. `limits` has ge, gt and le of numbers, min_length and max_length of texts, where there are any.

    optional: nothing may be given; `resolve` then takes the base model's own default, where it has one. `default` is
    None for those, and where the field is `required`.
    """

    name: str
    json_name: str
    kind: type[bool] | type[int] | type[float] | type[str] | type[UUID] | type[StrEnum]
    description: str
    required: bool
    optional: bool
    default: Any
    limits: Mapping[str, float | int] = field(default_factory=dict[str, float | int])
    choices: tuple[str, ...] = ()


@cache
def training_fields() -> tuple[TrainingField, ...]:
    """Every field of a training request, in its order."""
    structure = cast(inspect.StructType, inspect.type_info(TrainingRequest))
    return tuple(_field(one) for one in structure.fields)


def _field(found: inspect.Field) -> TrainingField:
    kind, optional = found.type, False
    schema: dict[str, Any] = {}
    # Annotated may stand around the union with None and inside it: two of the one, one of the other.
    for _ in range(3):
        if isinstance(kind, inspect.Metadata):
            schema |= cast(dict[str, Any], kind.extra_json_schema or {})
            kind = kind.type
        elif isinstance(kind, inspect.UnionType):
            optional = True
            (kind,) = (one for one in kind.types if not isinstance(one, inspect.NoneType))
    description = str(schema.get("description", ""))
    limits = {
        name: value
        for name in ("ge", "gt", "le", "min_length", "max_length")
        if (value := cast(float | int | None, getattr(kind, name, None))) is not None
    }
    choices = tuple(str(value) for value in kind.values) if isinstance(kind, inspect.LiteralType) else ()
    default = None if found.default is msgspec.NODEFAULT else found.default
    return TrainingField(
        found.name,
        found.encode_name,
        _python_type(kind),
        description,
        found.required,
        optional,
        default,
        limits,
        choices,
    )


def _python_type(
    kind: inspect.Type,
) -> type[bool] | type[int] | type[float] | type[str] | type[UUID] | type[StrEnum]:
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
        case _:
            raise TypeError(f"A training request has a field of {type(kind).__name__}: say here how forms show it.")
