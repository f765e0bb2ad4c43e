"""The options of `darkroom train`: one for each field of a training request that is no argument of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, cast, get_type_hints

import typer

from storage.records.jobs.training_fields import TrainingField, training_fields

NOT_OPTIONS = ("data_set_id", "class_word", "base_model", "availability")
"""What the command asks for in its own way: PHOTOS or --data-set, CLASS_WORD, --base and --public."""

OPTION_FIELDS = tuple(field for field in training_fields() if field.name not in NOT_OPTIONS)


def with_training_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with those options, which it is given as keyword arguments: `**training`, None where nothing was
    given. They stand before its own options that have `--` in their names' place in the signature."""
    hints = get_type_hints(command, include_extras=True)
    own = [one for one in inspect.signature(command).parameters.values() if one.kind is not one.VAR_KEYWORD]
    first_flag = next((at for at, one in enumerate(own) if one.kind is one.KEYWORD_ONLY), len(own))
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(field))
        for field in OPTION_FIELDS
    ]
    parameters = [one.replace(annotation=hints[one.name]) for one in own]
    parameters[first_flag:first_flag] = options
    described = cast(Any, command)
    # Typer reads both: the order from the signature, the types from the annotations.
    described.__signature__ = inspect.Signature(parameters)
    described.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": None}
    return command


def given_options(training: dict[str, Any]) -> dict[str, Any]:
    """Those that were given. Of an option that may be repeated none at all is an empty list."""
    return {name: value for name, value in training.items() if value is not None and value != []}


def _annotation(field: TrainingField) -> Any:
    # Click knows closed ranges: the API refuses the number itself where it is left out.
    low, high = field.limits.get("ge", field.limits.get("gt")), field.limits.get("le")
    several = " Repeat it for several." if field.kind is list[str] else ""
    option = typer.Option(min=low, max=high, help=f"{field.help}{several}")
    kind: Any = field.kind
    return Annotated[kind | None, option]
