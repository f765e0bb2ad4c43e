"""Prompts with choices, in the grammar of the Dynamic Prompts extension: the same seed makes the same choices.

    {a|b|c}            one of three                 {2::a|b}         a twice as often as b
    {2$$a|b|c}         two of them: `a, c`          {2$$ and $$a|b}  joined by ` and `
    {1-2$$a|b|c}       one or two; `{-2$$…}` is the same, `{2-$$…}` is two or all
    __colour__         one of the list `colour`     __colour*__      one of all lists whose names begin so
    {2$$__colour__}    two different ones of the list
    \\{ \\} \\| \\_        the character itself

Options, and values of lists, may hold choices in turn, and weights. Spaces count. Variables (`${…}`) and parameters of
lists (`__name(…)__`) are refused. A text without any of this is returned as it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from fnmatch import fnmatchcase
from heapq import nlargest
from itertools import count
from types import MappingProxyType

from storage.errors import InvalidRequest
from storage.records.generation.choices.templates import (
    NamedList,
    Options,
    Pieces,
    Variant,
    read_template,
    symbols_of,
    weighed,
)
from storage.records.generation.prompts import PromptBudget
from storage.records.generation.step_fields import MAX_LIST_NAME

MAX_LENGTH = 10_000
"""Characters of the result."""
MAX_DEPTH = 16
"""Choices within choices, lists that name lists included: one that names itself ends here."""
MAX_CHOICES = 200
"""Options that are chosen for one prompt."""
MAX_VALUES = 10_000
"""Values to choose one from."""
MAX_NAMED = 10
CHOICE_SYMBOLS = 4
"""A choice takes the time of so many symbols."""
NO_LISTS: Mapping[str, Sequence[str]] = MappingProxyType({})


def without_choices(
    prompt: str, seed: int, lists: Mapping[str, Sequence[str]] = NO_LISTS, *, field: str = "prompt"
) -> str:
    """The prompt with every choice made: a function of its text, the seed and the lists' values alone.

    Raises InvalidRequest with `field` for an unknown list, what is no choice, and a result beyond the limits above.
    """
    return PromptChoices(lists, PromptBudget()).text(prompt, seed, field)


class PromptChoices:
    """Makes the choices of prompts from lists. A text is read once, for however many seeds, and lists are too."""

    def __init__(self, lists: Mapping[str, Sequence[str]], budget: PromptBudget) -> None:
        self._lists, self._budget = lists, budget
        self._read: dict[str, Pieces] = {}
        self._kept: dict[str, Options] = {}

    def text(self, prompt: str, seed: int, field: str) -> str:
        """As `without_choices`; InvalidRequest also for what is more than the budget allows."""
        return _Expansion(self, prompt, seed, field).text(self.pieces(prompt, field), 0)

    def spend(self, symbols: int, field: str) -> None:
        """Take from the budget. Raises InvalidRequest when it is spent."""
        self._budget.spend(symbols, field)

    def pieces(self, template: str, field: str) -> Pieces:
        """What a text is made of. Raises InvalidRequest."""
        if template not in self._read:
            self.spend(symbols_of(template), field)
            self._read[template] = read_template(template, field)
        return self._read[template]

    def values(self, named: NamedList, field: str) -> Options:
        """The values to choose from. Raises InvalidRequest for a list that is not there or has none."""
        name = named.name
        if named.has_parameters:
            reason = f"'{named.shown}' has parameters, which are not supported; write them into the list"
            raise InvalidRequest({field: reason})
        if name not in self._kept:
            values = [value for one in self._fitting(name, field) for value in self._lists[one]]
            if len(values) > MAX_VALUES:
                reason = f"the list '{name}' has {len(values):,} values; the limit is {MAX_VALUES:,}"
                raise InvalidRequest({field: reason})
            self.spend(len(values), field)
            self._kept[name] = Options(map(weighed, values))
        if not self._kept[name]:
            raise InvalidRequest({field: f"the list '{name}' has no value that could be chosen"})
        return self._kept[name]

    def _fitting(self, name: str, field: str) -> list[str]:
        if name in self._lists:
            return [name]
        if len(name) > MAX_LIST_NAME:
            reason = f"'{name[:MAX_LIST_NAME]}...' is longer than the name of any list, {MAX_LIST_NAME} characters"
            raise InvalidRequest({field: f"{reason}; write \\_ for underscores that are text"})
        # Its comparisons take the time of so many symbols.
        self.spend(MAX_LIST_NAME * 4 + len(self._lists) * 20, field)
        if fitting := sorted(known for known in self._lists if "*" in name and fnmatchcase(known, name)):
            return fitting
        raise InvalidRequest({field: f"there is no list '{name[:60]}'; {self._known(name)}"})

    def _known(self, name: str) -> str:
        if not self._lists:
            return "none was given. Write \\_ for underscores that are text"
        # Ratios take time, so of many names only those that share the most letters with it are measured.
        alike = nlargest(MAX_NAMED, sorted(self._lists), lambda known: _likeness(known, name))
        nearest = get_close_matches(name, [known[:MAX_LIST_NAME] for known in sorted(alike)], n=MAX_NAMED, cutoff=0.0)
        more = len(self._lists) - len(nearest)
        return f"known are, nearest first: {', '.join(nearest)}" + (f" and {more:,} more" if more else "")


def _likeness(known: str, name: str) -> float:
    return SequenceMatcher(None, known[:MAX_LIST_NAME], name).quick_ratio()


class _Expansion:
    """One prompt on its way to its text, with what has been spent of the limits."""

    def __init__(self, choices: PromptChoices, prompt: str, seed: int, field: str) -> None:
        self._from, self._field = choices, field
        self._random = _fractions(f"{seed}\0{prompt}")
        self._choices = self._length = 0

    def text(self, pieces: Pieces, depth: int) -> str:
        """A text with its choices made, from left to right."""
        self._spend(len(pieces))
        made: list[str] = []
        for piece in pieces:
            if isinstance(piece, str):
                made.append(self._counted(piece))
            elif isinstance(piece, Variant):
                made.append(self._variant(piece, depth + 1))
            else:
                made.append(self._chosen(self._from.values(piece, self._field), 1, "", depth + 1))
        return made[0] if len(made) == 1 else "".join(made)

    def _variant(self, variant: Variant, depth: int) -> str:
        options = self._from.values(variant.named, self._field) if variant.named else variant.options
        if not options:
            raise self._refused("it has a choice whose options all have the weight 0; leave out the weights")
        bounds = variant.bounds
        if bounds is None:
            return self._chosen(options, 1, "", depth)
        low, high = self._counts(bounds, len(options))
        joiner = ", " if bounds["joiner"] is None else bounds["joiner"]
        return self._chosen(options, low + int(next(self._random) * (high - low + 1)), joiner, depth)

    def _counts(self, bounds: re.Match[str], available: int) -> tuple[int, int]:
        exact = bounds["exact"]
        low, high = int(exact or bounds["low"] or 1), int(exact or bounds["high"] or available)
        if low > high and bounds["high"]:
            raise self._refused(f"'{bounds[0]}' asks for at least {low} and at most {high}; swap the two")
        return min(low, available), min(high, available)

    def _chosen(self, options: Options, wanted: int, joiner: str, depth: int) -> str:
        self._choices += wanted
        if depth > MAX_DEPTH or self._choices > MAX_CHOICES:
            raise self._refused(
                f"it has more than {MAX_CHOICES:,} choices, or some that are more than {MAX_DEPTH} deep; lists that "
                "name themselves or each other never end"
            )
        self._spend(wanted * CHOICE_SYMBOLS)
        chosen = [self.text(self._pieces(item), depth) for item in options.chosen(wanted, self._random, self._spend)]
        self._counted(joiner * (wanted - 1))
        return joiner.join(chosen)

    def _pieces(self, item: str | Pieces) -> Pieces:
        return self._from.pieces(item, self._field) if isinstance(item, str) else item

    def _counted(self, text: str) -> str:
        self._length += len(text)
        if self._length > MAX_LENGTH:
            raise self._refused(f"with its choices made it is longer than {MAX_LENGTH:,} characters")
        return text

    def _spend(self, symbols: int) -> None:
        self._from.spend(symbols, self._field)

    def _refused(self, reason: str) -> InvalidRequest:
        return InvalidRequest({self._field: reason})


def _fractions(key: str) -> Iterator[float]:
    """Numbers of [0, 1), from SHA-256: Python promises only that `random.random` stays the same, not what uses it."""
    start = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    for number in count():
        content = hashlib.sha256(start + number.to_bytes(8, "big")).digest()
        # 53 bits are what a float holds exactly.
        yield (int.from_bytes(content[:8], "big") >> 11) / 2**53
