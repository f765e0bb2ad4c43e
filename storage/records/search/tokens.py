"""How a text becomes the words that a search compares. Both engines are given these words and split nothing themselves.

A word is a run of letters and digits, folded: compatibility forms and case are made one, accents come off. Writing
without spaces (Chinese, Japanese) is taken as every sign and every pair of neighbours, so that a word inside is found.
There are no stop words: "It" and "Her" are names.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache

MAX_LETTERS = 64
"""A longer run of letters is cut here, in documents and in queries alike."""

# Letters that Unicode does not take apart into a plain one and an accent.
_PLAIN = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ħ": "h", "ı": "i", "ŧ": "t", "ŋ": "n"}
)
# Accents of Latin, Greek and Cyrillic only: in kana and Indic scripts such a mark makes another letter.
_ACCENTS = dict.fromkeys(range(0x300, 0x370))
_UNSPACED = (
    (0x2E80, 0x2FDF),  # radicals
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3040, 0x30FF),  # hiragana, katakana
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_ASCII_RUN = re.compile(r"[a-z0-9]+")
# No other sign of ASCII is part of a word, so a folded text may be cut at those before its signs are looked at.
_PIECE = re.compile(r"[a-z0-9\x80-\U0010ffff]+")


def fold(text: str) -> str:
    """One form of text that looks or is meant the same: é and e, Ａ and a, ß and ss."""
    if text.isascii():  # as all below would do, twenty times faster
        return text.lower()
    opened = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text).casefold())
    return unicodedata.normalize("NFKC", opened.translate(_ACCENTS)).translate(_PLAIN)


def words_of(*texts: str) -> tuple[str, ...]:
    """The words that a document with these texts is found by, each once, in order."""
    found: dict[str, None] = {}
    for text in texts:
        found.update(dict.fromkeys(_label_words(text) if len(text) <= MAX_LETTERS else _document_words(fold(text))))
    return tuple(found)


def asked_words(text: str) -> tuple[str, ...]:
    """The words that a query asks for, each once, in order; one given twice counts where it stands last."""
    words: list[str] = []
    for run, unspaced in _runs(fold(text)):
        words.extend(_pairs(run) if unspaced and len(run) > 1 else [run[:MAX_LETTERS]])
    return tuple(reversed(dict.fromkeys(reversed(words))))


def whole(text: str) -> str:
    """A name as it is compared with a whole query: folded, single spaces."""
    return " ".join(fold(text).split())


def stem(word: str) -> str:
    """The word without an English plural ending; words of fewer than four letters are left alone.

    Source: the S-stemmer of Harman 1991, with the -es of boxes, dresses and buses.
    """
    if len(word) < 4 or not word.endswith("s") or not word.isascii():
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses", "zes")):
        return word[:-2]
    if word.endswith("uses") and not word.endswith(("auses", "ouses")):  # buses, but causes and houses
        return word[:-2]
    if word.endswith(("us", "ss", "is")):
        return word
    return word[:-1]


def allowed_edits(word: str) -> int:
    """How many typing errors an asked word may have: one from four letters, two from eight; none in a number."""
    if word.isdigit() or len(word) < 4:
        return 0
    return 1 if len(word) < 8 else 2


def edits(first: str, second: str, maximum: int) -> int:
    """Letters added, left out, exchanged or swapped with their neighbour between two words; `maximum + 1` for more.

    Source: optimal string alignment, Damerau 1964. Not rapidfuzz: these lines are exact and compare the few candidates
    of one question; a compiled library would be one more thing to install for them.
    """
    if abs(len(first) - len(second)) > maximum:
        return maximum + 1
    before: list[int] = []
    previous = list(range(len(second) + 1))
    for row, letter in enumerate(first, 1):
        current = [row]
        for column, other in enumerate(second, 1):
            cost = min(previous[column] + 1, current[column - 1] + 1, previous[column - 1] + (letter != other))
            if row > 1 and column > 1 and letter == second[column - 2] and first[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            current.append(cost)
        if min(current) > maximum:
            return maximum + 1
        before, previous = previous, current
    return min(previous[-1], maximum + 1)


@lru_cache(maxsize=65_536)
def _label_words(text: str) -> tuple[str, ...]:
    """Short texts are mostly labels, which many documents share."""
    return tuple(_document_words(fold(text)))


def _document_words(folded: str) -> list[str]:
    if folded.isascii():
        runs: list[str] = _ASCII_RUN.findall(folded)
        return runs if max(map(len, runs), default=0) <= MAX_LETTERS else [run[:MAX_LETTERS] for run in runs]
    words: list[str] = []
    for run, unspaced in _runs(folded):
        words.extend([*run, *_pairs(run)] if unspaced else [run[:MAX_LETTERS]])
    return words


def _pairs(run: str) -> list[str]:
    return [run[at : at + 2] for at in range(len(run) - 1)]


def _runs(folded: str) -> Iterator[tuple[str, bool]]:
    """The runs of letters and digits, and whether each is of writing without spaces."""
    for piece in _PIECE.findall(folded):
        if piece.isascii():
            yield piece, False
        else:
            yield from _runs_of_signs(piece)


def _runs_of_signs(piece: str) -> Iterator[tuple[str, bool]]:
    run: list[str] = []
    unspaced = False
    for sign in piece:
        kind = unicodedata.category(sign)[0]
        if kind not in "LN" and not (kind == "M" and run):
            if run:
                yield "".join(run), unspaced
                run = []
            continue
        now_unspaced = unspaced if kind == "M" else _is_unspaced(sign)
        if run and now_unspaced != unspaced:
            yield "".join(run), unspaced
            run = []
        unspaced = now_unspaced
        run.append(sign)
    if run:
        yield "".join(run), unspaced


def _is_unspaced(sign: str) -> bool:
    return sign > "\u2e7f" and any(low <= ord(sign) <= high for low, high in _UNSPACED)
