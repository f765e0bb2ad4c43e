"""How well a document matches a search: one rule, so that every engine returns the same hits in the same order.

Each asked word counts by the best way in which a document has it. Fewer typing errors come before everything, then
fewer beginnings, then fewer plurals, then better places (a name before a description). A whole name that is asked for
comes first among equals. Then, as in the catalogue's lists, the more liked and the newer id.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import msgspec

from storage.records.search.tokens import allowed_edits, asked_words, stem, whole

MAX_WORDS = 24
FUSED = 200
"""Hits of each ranking that a fusion looks at."""
FUSION_K = 60
"""Source: Cormack, Clarke and Büttcher 2009."""


class WordPlace(IntEnum):
    """Where in a document a word stands, the best place highest."""

    BODY = 0
    DETAILS = 1
    LABELS = 2
    NAME = 3


class Match(IntEnum):
    """In which way a document has an asked word; the value is what that costs of WORD_SCORE.

    The numbers keep the order of the ways for MAX_WORDS words together, and their sums are whole in 32-bit floats.
    """

    EXACT = 0
    PLURAL = 128
    PREFIX = 4096
    ONE_EDIT = 8192
    # Twice ONE_EDIT, since it is two errors: in one word or in two, they cost the same.
    TWO_EDITS = 16384


# 24 words of it are under 2**24, up to which a 32-bit float, as Elasticsearch's scores are, holds whole numbers.
WORD_SCORE = 32768
WHOLE_NAME_SCORE = 1
MIN_PREFIX = 2


def word_score(match: Match, place: WordPlace) -> int:
    """What a document gains for having an asked word in this way at this place."""
    return WORD_SCORE - match + place


class Hit(msgspec.Struct, frozen=True):
    """A document that was found. Scores compare hits of one response, larger is better."""

    id: int
    score: float


class AskedWord(msgspec.Struct, frozen=True):
    """A word that a document must have: itself, a word of its stem, one within `edits`, or one that it begins."""

    word: str
    stem: str
    edits: int
    begins: bool


class AskedText(msgspec.Struct, frozen=True):
    """What words a text asks for, and the text as a whole name."""

    words: tuple[AskedWord, ...]
    name: str


def asked(text: str) -> AskedText:
    """What a text asks for. Only its last word may be the beginning of one."""
    words = asked_words(text)
    last = len(words) - 1
    return AskedText(
        tuple(
            AskedWord(word, stem(word), allowed_edits(word), number == last and len(word) >= MIN_PREFIX)
            for number, word in enumerate(words)
        ),
        whole(text),
    )


def fuse(*rankings: Sequence[int]) -> list[Hit]:
    """Rankings of ids, best first, as one: the sum of 1 / (k + position); what is equal is ordered by id.

    Source: reciprocal rank fusion, Cormack, Clarke and Büttcher 2009.
    """
    scores: dict[int, float] = {}
    for ranking in rankings:
        for position, identity in enumerate(ranking[:FUSED], 1):
            scores[identity] = scores.get(identity, 0.0) + 1 / (FUSION_K + position)
    ordered = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    return [Hit(identity, score) for identity, score in ordered]
