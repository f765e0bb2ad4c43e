"""Patterns of parameter names: which of a method's parameters a recipe trains."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from storage.errors import JobCannotSucceed
from storage.records.jobs.trained_parts import matches

T = TypeVar("T")


def selected(train_only: str, parameters: Mapping[str, T]) -> dict[str, T]:
    """The parameters whose names match."""
    return {name: parameter for name, parameter in parameters.items() if matches(train_only, name)}


def refuse_unmatched(train_only: str, names: list[str]) -> None:
    """Refuse a pattern that matches none of `names`: a misspelt one would freeze what should train.

    Raises JobCannotSucceed with the pattern and two names as examples.
    """
    for pattern in (part.strip() for part in train_only.split(",")):
        if pattern and not any(fnmatchcase(name, pattern) for name in names):
            examples = f"{names[0]} and {names[-1]}" if names else "none at all: every rate is 0"
            raise JobCannotSucceed(
                f"train_only: no parameter that this method trains matches '{pattern}'; there are {len(names)}, "
                f"for example {examples}."
            )
