"""What a prompt says besides its words: attention weights, chunks and adapter tags, in the grammar of A1111's web UI.

    (x)  ((x))     1.1 times, 1.21 times the attention      [x]          divided by 1.1
    (x:1.3)        1.3 times                                a BREAK b    b begins a new chunk
    \\( \\) \\[ \\] \\\\  the character itself                     \\x           any other backslash is left out

A bracket that is never closed reaches to the end; one that was never opened is a character; a weight that is no number,
as in `(x:1.2.3)`, is text. `BREAK` also works inside of brackets, where A1111 takes it for a word. Prompt editing
(`[from:to:0.5]`) and alternation (`[a|b]`) are refused by `check_prompt`: A1111 reads them as something else than
weights. Its `AND` is a word here.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from storage.errors import InvalidRequest

ROUND, SQUARE = 1.1, 1 / 1.1
MAX_WEIGHT = 100.0
"""Of a part of a prompt; pictures are noise long before, and half precision overflows soon after."""
MAX_DEPTH = 50
"""Brackets within brackets. So many round ones are beyond the weight, and reading takes time with each."""
MAX_SYMBOLS = 100_000
"""Of all prompts of a workflow, its lists and choices included: no more than about 0.1 seconds of a processor."""
MAX_CHARACTERS = 256 * 1024
"""Of the prompts of all pictures of a workflow, each of which is stored with its own, and of those asked for."""
CHECK_SYMBOLS = 3
"""Checking a symbol of a prompt takes the time of so many."""
_COUNTED = (*"\\()[]:<", "BREAK")
_SHOWN = 80
_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)"
_SYMBOL = re.compile(
    rf"""\\(?P<escaped>[\\()\[\]]?)
       | :\s*(?P<weight>{_NUMBER})\s*\)
       | (?P<bracket>[()\[\]])
       | [^\\()\[\]:]+
       | :""",
    re.VERBOSE,
)
_BREAK = re.compile(r"\bBREAK\b")
_SPECIAL = re.compile(r"[\\()\[\]]")
_TAG = re.compile(r"<(?P<kind>lora|lyco|hypernet):(?P<name>[^<>:]+)(?::(?P<rest>[^<>]*))?>", re.IGNORECASE)
_SCHEDULE = re.compile(rf"(?<!\\)\[(?:[^\\()\[\]|]*:\s*{_NUMBER}\s*|[^\\\[\]|]*\|[^\\\[\]]*)\]")


class PromptPart(NamedTuple):
    """Text of one weight. `new_chunk`: the text encoder reads it, and what follows it, apart from what is before."""

    text: str
    weight: float = 1.0
    new_chunk: bool = False


class AdapterTag(NamedTuple):
    """`<lora:name:0.8>`. `strength` is 1 where the tag has none, and None where it is no plain number."""

    tag: str
    kind: str
    name: str
    strength: float | None


class PromptBudget:
    """What the prompts of one workflow may take, whatever they hold: time, counted in symbols, and room."""

    def __init__(self, symbols: int = MAX_SYMBOLS, characters: int = MAX_CHARACTERS) -> None:
        self._left, self._room = symbols, characters
        self._checked: set[str] = set()

    def spend(self, symbols: int, field: str) -> None:
        """Take from it. Raises InvalidRequest with `field` when it is spent."""
        self._left -= symbols
        if self._left < 0:
            reason = "the prompts of this request have too many brackets, choices and values of lists in all"
            raise InvalidRequest({field: f"{reason}. Ask for fewer pictures in each of several requests"})

    def keep(self, characters: int, field: str) -> None:
        """Take room for a prompt that is stored. Raises InvalidRequest with `field` when there is none."""
        self._room -= characters
        if self._room < 0:
            reason = f"the prompts of all pictures are more than {MAX_CHARACTERS:,} characters"
            raise InvalidRequest({field: f"{reason}. Ask for fewer pictures in each of several requests"})

    def check(self, prompt: str, field: str) -> None:
        """As `check_prompt`, once for each text. Raises InvalidRequest also when the budget is spent."""
        if prompt not in self._checked:
            # A symbol is read several times over, and weighed for each bracket that it is in.
            self.spend(1 + len(prompt) // 1000 + CHECK_SYMBOLS * sum(map(prompt.count, _COUNTED)), field)
            check_prompt(field, prompt)
            self._checked.add(prompt)


def weighted_parts(prompt: str) -> tuple[PromptPart, ...]:
    """The parts of a prompt in their order, neighbours of one weight joined; at least one, which may be empty.

    Two `BREAK` in a row, or one at the start, leave an empty chunk; one at the end leaves none.
    """
    reader = _PromptReader()
    for symbol in _SYMBOL.finditer(prompt):
        reader.take(symbol)
    return _joined(reader.finish())


def escaped(text: str) -> str:
    """A prompt that says exactly `text`, with the weight 1 and in one piece."""
    # Nothing escapes BREAK but a backslash inside of it, which is left out when the prompt is read.
    return _SPECIAL.sub(r"\\\g<0>", text).replace("BREAK", "BREA\\K")


def adapter_tags(prompt: str) -> tuple[AdapterTag, ...]:
    """The tags by which A1111 loads adapters, in their order."""
    return tuple(
        AdapterTag(found[0], found["kind"].lower(), found["name"].strip(), _strength(found["rest"]))
        for found in _TAG.finditer(prompt)
    )


def without_adapter_tags(prompt: str) -> str:
    """The prompt without its adapter tags."""
    return _TAG.sub("", prompt)


def check_prompt(field: str, prompt: str) -> None:
    """Refuse what would be drawn as something else than it means. To be asked once wildcards are replaced.

    Raises InvalidRequest with `field` for adapter tags, prompt editing, alternation, weights beyond 100, and more than
    50 brackets within each other.
    """
    if _depth(prompt) > MAX_DEPTH:
        raise InvalidRequest({field: f"it has more than {MAX_DEPTH} brackets within each other; write (text:1.3)"})
    if tags := adapter_tags(prompt):
        listed = ", ".join(tag.tag[:_SHOWN] for tag in tags)
        raise InvalidRequest(
            {field: f"a prompt loads no adapters: {listed}. Ask for them in the field adapters, and remove the tags"}
        )
    if found := _SCHEDULE.search(prompt):
        raise InvalidRequest(
            {
                field: f"'{found[0][:_SHOWN]}' is prompt editing or alternation, which is not supported; a weight is "
                "written (text:1.3), and brackets that are text \\[ and \\]"
            }
        )
    for part in weighted_parts(prompt):
        if not math.isfinite(part.weight) or abs(part.weight) > MAX_WEIGHT:
            raise InvalidRequest(
                {field: f"'{part.text[:_SHOWN]}' has the weight {part.weight:g}; the limit is {MAX_WEIGHT:g}"}
            )


def _depth(prompt: str) -> int:
    depth = deepest = 0
    for symbol in _SYMBOL.finditer(prompt):
        opened = symbol["bracket"] is not None and symbol["bracket"] in "(["
        depth = depth + 1 if opened else max(depth - 1, 0) if symbol["bracket"] or symbol["weight"] else depth
        deepest = max(deepest, depth)
    return deepest


class _PromptReader:
    """Collects texts, and for each closed bracket from which weight on it counts."""

    def __init__(self) -> None:
        # Texts between two brackets have one weight: each with the number of its own, and whether it begins a chunk.
        self._texts: list[tuple[list[str], int, bool]] = []
        self._weights: list[float] = []
        self._is_bracket_last = True
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def take(self, symbol: re.Match[str]) -> None:
        whole, bracket, weight = symbol[0], symbol["bracket"], symbol["weight"]
        if symbol["escaped"] is not None:
            self._add(symbol["escaped"])
        elif bracket in self._open:
            self._open[bracket].append(len(self._weights))
            self._is_bracket_last = True
        elif weight is not None and self._open["("]:
            self._weigh(self._open["("].pop(), float(weight))
        elif bracket == ")" and self._open["("]:
            self._weigh(self._open["("].pop(), ROUND)
        elif bracket == "]" and self._open["["]:
            self._weigh(self._open["["].pop(), SQUARE)
        else:
            self._add_words(whole)

    def finish(self) -> list[PromptPart]:
        """Everything collected; brackets that are still open end here."""
        for bracket, factor in (("(", ROUND), ("[", SQUARE)):
            for start in self._open[bracket]:
                self._weigh(start, factor)
        return [PromptPart("".join(texts), self._weights[number], begins) for texts, number, begins in self._texts]

    def _add(self, text: str, *, new_chunk: bool = False) -> None:
        if self._is_bracket_last:
            self._weights.append(1.0)
        elif not new_chunk:
            self._texts[-1][0].append(text)
            return
        self._is_bracket_last = False
        self._texts.append(([text], len(self._weights) - 1, new_chunk))

    def _add_words(self, text: str) -> None:
        first, *others = _BREAK.split(text)
        # A1111 takes the spaces around BREAK with it.
        self._add(first.rstrip() if others else first)
        for number, other in enumerate(others, 1):
            self._add(other.lstrip() if number == len(others) else other.strip(), new_chunk=True)

    def _weigh(self, start: int, factor: float) -> None:
        self._weights[start:] = [weight * factor for weight in self._weights[start:]]
        self._is_bracket_last = True


def _joined(parts: list[PromptPart]) -> tuple[PromptPart, ...]:
    made: list[PromptPart] = []
    for part in parts:
        last = made[-1] if made else None
        if last is None or part.new_chunk:
            made.append(part)
        elif last.weight == part.weight or not last.text:
            # An empty text has no weight; one that begins a chunk passes that on.
            made[-1] = PromptPart(last.text + part.text, part.weight, last.new_chunk)
        elif part.text:
            made.append(part)
    return tuple(made) or (PromptPart(""),)


def _strength(rest: str | None) -> float | None:
    if rest is None:
        return 1.0
    found = re.fullmatch(rf"\s*({_NUMBER})\s*(?::.*)?", rest)
    return float(found[1]) if found else None
