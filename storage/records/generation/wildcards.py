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
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from itertools import accumulate, count
from types import MappingProxyType

from storage.errors import InvalidRequest

MAX_LENGTH = 10_000
"""Characters of the result."""
MAX_DEPTH = 16
"""Choices within choices, lists that name lists included: one that names itself ends here."""
MAX_CHOICES = 200
"""Options that are chosen for one prompt."""
MAX_VALUES = 10_000
"""Values to choose one from."""
MAX_NAMED = 10
NO_LISTS: Mapping[str, Sequence[str]] = MappingProxyType({})
_SYMBOL = re.compile(
    r"""\\(?P<escaped>[{}|_]) | (?P<pair>\\\\)
      | __(?P<name>(?!_)[\w*./-]+?)(?P<parameters>\([^()]*\))?__
      | \$\$ | (?P<mark>\$\{|[{}|])
      | [^\\{}|_$]+ | .""",
    re.VERBOSE | re.DOTALL,
)
_BOUNDS = re.compile(r"\s*(?:(?P<exact>\d{1,9})|(?P<low>\d{0,9})-(?P<high>\d{0,9}))\$\$(?:(?P<joiner>[^${}|]*)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


def without_choices(
    prompt: str, seed: int, lists: Mapping[str, Sequence[str]] = NO_LISTS, *, field: str = "prompt"
) -> str:
    """The prompt with every choice made: a function of its text, the seed and the lists' values alone.

    Raises InvalidRequest with `field` for an unknown list, what is no choice, and a result beyond the limits above.
    """
    return _Expansion(prompt, seed, lists, field).text(prompt, 0)


class _Options:
    """Texts to choose from, each with its weight; those of weight 0 are left out."""

    def __init__(self, weighed: Iterable[tuple[float, str]]) -> None:
        self._weighed = [(weight, text) for weight, text in weighed if weight > 0]
        self._sums = list(accumulate(weight for weight, _ in self._weighed))

    def __len__(self) -> int:
        return len(self._weighed)

    def at(self, fraction: float) -> int:
        """The number of the text at this fraction of all weights."""
        # Rounding can lead behind the last one.
        return min(bisect_right(self._sums, fraction * self._sums[-1]), len(self) - 1)

    def text(self, number: int) -> str:
        """The text of this number."""
        return self._weighed[number][1]

    def without(self, number: int) -> _Options:
        """The same less the text of this number."""
        return _Options([*self._weighed[:number], *self._weighed[number + 1 :]])


class _Expansion:
    """One prompt on its way to its text, with what has been spent of the limits."""

    def __init__(self, prompt: str, seed: int, lists: Mapping[str, Sequence[str]], field: str) -> None:
        self._lists, self._field = lists, field
        self._random = _fractions(f"{seed}\0{prompt}")
        self._kept: dict[str, _Options] = {}
        self._choices = self._length = 0

    def text(self, template: str, depth: int) -> str:
        """A template with its choices made, from left to right."""
        made: list[str] = []
        for symbol, inside in self._pieces(template):
            if inside is not None:
                made.append(self._variant(inside, depth + 1))
            elif symbol["name"]:
                made.append(self._chosen(self._values(symbol), 1, "", depth + 1))
            elif symbol["mark"] == "}":
                raise self._refused("there is a } without its {; write \\} for the character")
            else:
                made.append(self._counted(symbol["escaped"] or symbol[0]))
        return "".join(made)

    def _variant(self, inside: str, depth: int) -> str:
        bounds = _BOUNDS.match(inside)
        texts = _split(inside[bounds.end() :] if bounds else inside)
        alone = _SYMBOL.fullmatch(texts[0].strip()) if len(texts) == 1 else None
        options = self._values(alone) if alone and alone["name"] else _Options(map(_weighed, texts))
        if not options:
            raise self._refused("it has a choice whose options all have the weight 0; leave out the weights")
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

    def _chosen(self, options: _Options, wanted: int, joiner: str, depth: int) -> str:
        self._choices += wanted
        if depth > MAX_DEPTH or self._choices > MAX_CHOICES:
            raise self._refused(
                f"it has more than {MAX_CHOICES:,} choices, or some that are more than {MAX_DEPTH} deep; lists that "
                "name themselves or each other never end"
            )
        chosen: list[str] = []
        for left in reversed(range(wanted)):
            number = options.at(next(self._random))
            chosen.append(self.text(options.text(number), depth))
            options = options.without(number) if left else options
        self._counted(joiner * (wanted - 1))
        return joiner.join(chosen)

    def _values(self, symbol: re.Match[str]) -> _Options:
        name = symbol["name"]
        if symbol["parameters"]:
            raise self._refused(f"'{symbol[0][:60]}' has parameters, which are not supported; write them into the list")
        if name not in self._kept:
            values = [value for one in self._fitting(name) for value in self._lists[one]]
            if len(values) > MAX_VALUES:
                raise self._refused(f"the list '{name}' has {len(values):,} values; the limit is {MAX_VALUES:,}")
            self._kept[name] = _Options(map(_weighed, values))
            if not self._kept[name]:
                raise self._refused(f"the list '{name}' has no value that could be chosen")
        return self._kept[name]

    def _fitting(self, name: str) -> list[str]:
        if name in self._lists:
            return [name]
        if fitting := sorted(known for known in self._lists if "*" in name and fnmatchcase(known, name)):
            return fitting
        raise self._refused(f"there is no list '{name[:60]}'; {self._known(name)}")

    def _known(self, name: str) -> str:
        if not self._lists:
            return "none was given. Write \\_ for underscores that are text"
        nearest = get_close_matches(name, sorted(self._lists), n=MAX_NAMED, cutoff=0.0)
        more = len(self._lists) - len(nearest)
        return f"known are, nearest first: {', '.join(nearest)}" + (f" and {more:,} more" if more else "")

    def _counted(self, text: str) -> str:
        self._length += len(text)
        if self._length > MAX_LENGTH:
            raise self._refused(f"with its choices made it is longer than {MAX_LENGTH:,} characters")
        return text

    def _pieces(self, template: str) -> Iterator[tuple[re.Match[str], str | None]]:
        """The symbols of a template; of a variant its `{`, and what is between that and its `}`."""
        opened: re.Match[str] | None = None
        level = 0
        for symbol in _SYMBOL.finditer(template):
            mark = symbol["mark"]
            if mark == "${":
                raise self._refused("variables (${...}) are not supported; write $\\{ for the characters")
            level += (mark == "{") - (mark == "}" and opened is not None)
            if opened is None and mark == "{":
                opened = symbol
            elif opened is None:
                yield symbol, None
            elif level == 0:
                yield opened, template[opened.end() : symbol.start()]
                opened = None
        if opened is not None:
            raise self._refused("there is a { without its }; write \\{ for the character")

    def _refused(self, reason: str) -> InvalidRequest:
        return InvalidRequest({self._field: reason})


def _split(inside: str) -> list[str]:
    """The options of a variant; a | of a variant inside of it is that one's."""
    level, start, options = 0, 0, list[str]()
    for symbol in _SYMBOL.finditer(inside):
        level += (symbol["mark"] == "{") - (symbol["mark"] == "}")
        if symbol["mark"] == "|" and level == 0:
            options.append(inside[start : symbol.start()])
            start = symbol.end()
    return [*options, inside[start:]]


def _weighed(option: str) -> tuple[float, str]:
    found = _WEIGHT.match(option)
    return (float(found[1]), option[found.end() :]) if found else (1.0, option)


def _fractions(key: str) -> Iterator[float]:
    """Numbers of [0, 1), from SHA-256: Python promises only that `random.random` stays the same, not what uses it."""
    start = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
    for number in count():
        content = hashlib.sha256(start + number.to_bytes(8, "big")).digest()
        # 53 bits are what a float holds exactly.
        yield (int.from_bytes(content[:8], "big") >> 11) / 2**53
