"""Patterns of parameter names: which of a method's parameters a recipe trains."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TypeVar

from storage.errors import JobCannotSucceed

T = TypeVar("T")


def matches(train_only: str, name: str) -> bool:
    """Whether a name, such as `unet.conv_in.weight`, is of one of the patterns; none at all match every name.

    Patterns are those of a shell (`*`, `?`, `[...]`), separated by commas.
    """
    patterns = [pattern.strip() for pattern in train_only.split(",") if pattern.strip()]
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


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
