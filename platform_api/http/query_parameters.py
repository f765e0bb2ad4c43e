"""Queries as Civitai's clients write them: lists repeated, comma-joined or with [], booleans as true or 1, old names.

What a route does not know is no error: it is named in X-Ignored-Parameters. What it knows and cannot read is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from litestar import Request
from litestar.openapi.spec import OpenAPIType, Parameter, Schema

from storage.errors import InvalidRequest
from storage.request_faults import has_control_characters

Choice = TypeVar("Choice", bound=StrEnum)

MAX_LENGTH = 4000
MANY = 500
MAX_INTEGER = 2**31 - 1
PLAIN_TEXT = r"^[^\x00-\x1f\x7f]*$"
"""A text without control characters, for the OpenAPI document."""
_TRUE, _FALSE = frozenset({"true", "1"}), frozenset({"false", "0"})


class QueryParameters:
    """The query of one request. Each reading method takes a parameter's name and its other names.

    Faults are collected; `check` raises them all at once.
    """

    def __init__(self, request: Request[Any, Any, Any]) -> None:
        self._given: dict[str, list[str]] = {}
        for name, value in request.query_params.multi_items():
            # axios and PHP write lists as `types[]=`.
            self._given.setdefault(str(name).removesuffix("[]"), []).append(str(value))
        self._kept: list[tuple[str, str]] = []
        self._read: set[str] = set()
        self._faults: dict[str, str] = {}

    def texts(self, name: str, *others: str) -> tuple[str, ...] | None:
        """A list of texts; None when it is not given or empty."""
        found: list[str] = []
        for alias in (name, *others):
            for value in self._take(alias):
                found += [part.strip() for part in value.split(",") if part.strip()]
        if len(found) > MANY:
            self._faults[name] = f"at most {MANY} values"
        return tuple(dict.fromkeys(found)) or None

    def text(self, name: str, *others: str) -> str | None:
        """One text; None when it is not given or empty."""
        # Given twice with one value is no contradiction: clients send an old and a new name of the same.
        found = list(dict.fromkeys(value for alias in (name, *others) for value in self._take(alias) if value))
        if len(found) > 1:
            self._faults[name] = "is given more than once, with different values"
        return found[0] if found else None

    def number(self, name: str, *others: str, low: int = 1, high: int = MAX_INTEGER) -> int | None:
        """A whole number from `low` to `high`."""
        text = self.text(name, *others)
        return None if text is None else self._number(name, text, low, high)

    def numbers(self, name: str, *others: str) -> tuple[int, ...] | None:
        """A list of ids."""
        found = self.texts(name, *others)
        return None if found is None else tuple(self._number(name, text, 1, MAX_INTEGER) for text in found)

    def boolean(self, name: str, *others: str) -> bool | None:
        """true, false, 1 or 0, in any case."""
        text = self.text(name, *others)
        if text is None:
            return None
        if text.lower() not in _TRUE | _FALSE:
            self._faults[name] = "expected true or false"
        return text.lower() in _TRUE

    def choice(self, kind: type[Choice], name: str, *others: str) -> Choice | None:
        """One of the values of `kind`."""
        text = self.text(name, *others)
        return None if text is None else self._choice(kind, name, text)

    def choices(self, kind: type[Choice], name: str, *others: str) -> tuple[Choice, ...] | None:
        """Some of the values of `kind`."""
        found = self.texts(name, *others)
        if found is None:
            return None
        found_choices = [self._choice(kind, name, text) for text in found]
        return tuple(one for one in found_choices if one is not None)

    def fault(self, name: str, reason: str) -> None:
        """Note what is wrong with a parameter."""
        self._faults[name] = reason

    def check(self) -> None:
        """Raises InvalidRequest with every fault."""
        if self._faults:
            raise InvalidRequest(self._faults)

    @property
    def ignored(self) -> list[str]:
        """The names that nobody has read."""
        return sorted(name for name in self._given if name not in self._read)

    def following(self, **replaced: object) -> str:
        """The query of the next page: what was read here, with these instead, or without those that are None."""
        kept = [(name, value) for name, value in self._kept if name not in replaced]
        instead = [(name, str(value)) for name, value in replaced.items() if value is not None]
        return urlencode([*kept, *instead])

    def _take(self, name: str) -> list[str]:
        self._read.add(name)
        values = self._given.get(name, [])
        if any(has_control_characters(value) or len(value) > MAX_LENGTH for value in values):
            self._faults[name] = f"must not hold control characters or more than {MAX_LENGTH:,} characters"
            return []
        # Only what a route has read goes on to the next page's address.
        self._kept += [(name, value) for value in values if (name, value) not in self._kept]
        return values

    def _number(self, name: str, text: str, low: int, high: int) -> int:
        # `isdigit` alone takes digits of other scripts, and `int` of a long text is quadratic.
        if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
            self._faults[name] = f"expected a whole number from {low:,} to {high:,}"
            # Some number, so that the reading goes on and finds the other faults; `check` comes before it is used.
            return low
        return int(text)

    def _choice(self, kind: type[Choice], name: str, text: str) -> Choice | None:
        for word in kind:
            if word.value.lower() == text.lower():
                return word
        self._faults[name] = f"expected one of: {', '.join(kind)}"
        return None


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Raises InvalidRequest for a parameter that holds control characters."""
    if any(has_control_characters(text) for text in texts):
        raise InvalidRequest({name: "must not hold control characters"})


def described(parameters: Mapping[str, tuple[Schema, str]]) -> list[Parameter]:
    """QueryParameters parameters for the OpenAPI document: each name with its schema and what it means."""
    return [
        Parameter(name=name, param_in="query", schema=schema, description=words, required=False)
        for name, (schema, words) in parameters.items()
    ]


def integer_schema(low: int = 1, high: int = MAX_INTEGER) -> Schema:
    """A whole number."""
    return Schema(type=OpenAPIType.INTEGER, minimum=low, maximum=high)


def text_schema(longest: int = 200) -> Schema:
    """A text without control characters; an empty one counts as not given."""
    return Schema(type=OpenAPIType.STRING, max_length=longest, pattern=PLAIN_TEXT)


def boolean_schema() -> Schema:
    """true or false."""
    return Schema(type=OpenAPIType.STRING, enum=["true", "false", "1", "0"])


def choice_schema(kind: type[StrEnum]) -> Schema:
    """One of some words."""
    return Schema(type=OpenAPIType.STRING, enum=[word.value for word in kind])


def list_schema(of: Schema) -> Schema:
    """Several, repeated or joined by commas."""
    return Schema(type=OpenAPIType.ARRAY, items=of, max_items=MANY)


def one_of(values: Sequence[str]) -> Schema:
    """One of some texts."""
    return Schema(type=OpenAPIType.STRING, enum=list(values))
