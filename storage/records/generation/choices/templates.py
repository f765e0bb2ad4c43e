"""A text with choices, read once: its pieces, which choices can be made from for any number of seeds."""

from __future__ import annotations

import re
from bisect import bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate, groupby
from typing import NamedTuple

from storage.errors import InvalidRequest

_SYMBOL = re.compile(
    r"""\\(?P<escaped>[{}|_]) | (?P<pair>\\\\)
      | __(?P<name>(?!_)[\w*./-]+?)(?P<parameters>\([^()]*\))?__
      | \$\$ | (?P<mark>\$\{|[{}|])
      | [^\\{}|_$]+ | .""",
    re.VERBOSE | re.DOTALL,
)
_BOUNDS = re.compile(r"\s*(?:(?P<exact>\d{1,9})|(?P<low>\d{0,9})-(?P<high>\d{0,9}))\$\$(?:(?P<joiner>[^${}|]*)\$\$)?")
_WEIGHT = re.compile(r"\s*(\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})::")


def symbols_of(template: str) -> int:
    """As many symbols as take the time in which a text is read; a choice and its options take that of several."""
    return 1 + 2 * sum(map(template.count, "\\{}|_$")) + 4 * template.count("{") + 2 * template.count("|")


def read_template(template: str, field: str) -> Pieces:
    """The pieces of a text. Raises InvalidRequest for what is no choice."""
    at, opened, pieces = 0, list[_OpenVariant](), list[Piece]()
    while symbol := _SYMBOL.match(template, at):
        at, mark = symbol.end(), symbol["mark"]
        if mark == "${":
            reason = "variables (${...}) are not supported; write $\\{ for the characters"
            raise InvalidRequest({field: reason})
        if mark == "{":
            opened.append(_OpenVariant(template, at, pieces))
            at, pieces = opened[-1].begin()
        elif mark == "|" and opened:
            opened[-1].end(symbol.start(), pieces)
            at, pieces = opened[-1].begin(at)
        elif mark == "}" and opened:
            opened[-1].end(symbol.start(), pieces)
            pieces = opened.pop().closed()
        elif mark == "}":
            raise InvalidRequest({field: "there is a } without its {; write \\} for the character"})
        else:
            pieces.append(_named(symbol) if symbol["name"] else symbol["escaped"] or symbol[0])
    if opened:
        raise InvalidRequest({field: "there is a { without its }; write \\{ for the character"})
    return _joined(pieces)


class NamedList(NamedTuple):
    """`__name__`. `shown`: the whole symbol, for a message."""

    name: str
    shown: str
    has_parameters: bool


class Variant(NamedTuple):
    """`{…}`. bounds: how many, if that is said. named: the list that is its only option."""

    bounds: re.Match[str] | None
    options: Options
    named: NamedList | None


Piece = str | NamedList | Variant
Pieces = tuple[Piece, ...]


class Options:
    """What can be chosen, each with its weight; those of weight 0 are left out. Values of lists are yet to be read."""

    def __init__(self, weighed: Iterable[tuple[float, str | Pieces]]) -> None:
        self._weighed = [(weight, item) for weight, item in weighed if weight > 0]
        self._sums = list(accumulate(weight for weight, _ in self._weighed))
        self._are_alike = all(weight == 1.0 for weight, _ in self._weighed)

    def __len__(self) -> int:
        return len(self._weighed)

    def item(self, number: int) -> str | Pieces:
        """The option of this number."""
        return self._weighed[number][1]

    def chosen(self, wanted: int, fractions: Iterator[float], spend: Callable[[int], None]) -> Iterator[str | Pieces]:
        """So many different ones; what each is chosen by is drawn when the one before it has been used."""
        if not self._are_alike:
            yield from self._weighed_ones(wanted, fractions, spend)
            return
        gone: list[int] = []
        for taken in range(wanted):
            spend(taken // 16)
            # As `at`, of the sums 1, 2, 3 …; then past those that are gone.
            left = len(self) - taken
            number = min(int(next(fractions) * left), left - 1)
            for earlier in gone:
                number += earlier <= number
            insort(gone, number)
            yield self.item(number)

    def _weighed_ones(
        self, wanted: int, fractions: Iterator[float], spend: Callable[[int], None]
    ) -> Iterator[str | Pieces]:
        options = self
        for left in reversed(range(wanted)):
            number = options.at(next(fractions))
            yield options.item(number)
            if left:
                spend(len(options) // 4)
                options = options.without(number)

    def at(self, fraction: float) -> int:
        """The number of the option at this fraction of all weights."""
        # Rounding can lead behind the last one.
        return min(bisect_right(self._sums, fraction * self._sums[-1]), len(self) - 1)

    def without(self, number: int) -> Options:
        """The same less the option of this number."""
        return Options([*self._weighed[:number], *self._weighed[number + 1 :]])


class _OpenVariant:
    """A variant up to where its text has been read. `around`: the pieces before it."""

    def __init__(self, template: str, at: int, around: list[Piece]) -> None:
        self._template, self._around = template, around
        self._bounds = _BOUNDS.match(template, at)
        self._start = self._bounds.end() if self._bounds else at
        self._weight = 1.0
        self._options: list[tuple[float, Pieces]] = []

    def begin(self, at: int | None = None) -> tuple[int, list[Piece]]:
        """An option begins, the first one behind the bounds; returns where its text does, and the pieces to fill."""
        self._start = self._start if at is None else at
        found = _WEIGHT.match(self._template, self._start)
        self._weight = float(found[1]) if found else 1.0
        return found.end() if found else self._start, []

    def end(self, at: int, pieces: list[Piece]) -> None:
        """An option ends here."""
        self._end, self._last = at, pieces
        self._options.append((self._weight, _joined(pieces)))

    def closed(self) -> list[Piece]:
        """The pieces around it, with it behind them."""
        named = None
        # A text that has a variant in it is no list, however long it is.
        if len(self._options) == 1 and not any(isinstance(piece, Variant) for piece in self._last):
            alone = _SYMBOL.fullmatch(self._template[self._start : self._end].strip())
            named = _named(alone) if alone and alone["name"] else None
        self._around.append(Variant(self._bounds, Options(self._options), named))
        return self._around


def _named(symbol: re.Match[str]) -> NamedList:
    return NamedList(symbol["name"], symbol[0][:60], symbol["parameters"] is not None)


def _joined(pieces: Iterable[Piece]) -> Pieces:
    """The pieces with texts that follow each other in one."""
    made: list[Piece] = []
    for _, group in groupby(pieces, lambda piece: isinstance(piece, str)):
        alike = list(group)
        texts = [piece for piece in alike if isinstance(piece, str)]
        made.extend(["".join(texts)] if texts else alike)
    return tuple(made)


def weighed(option: str) -> tuple[float, str]:
    """A value of a list, without the weight that it begins with, and that."""
    found = _WEIGHT.match(option)
    return (float(found[1]), option[found.end() :]) if found else (1.0, option)
