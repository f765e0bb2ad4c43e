"""Documents and asked words in the terms of Postgres full text: lexemes whose weight says where a word stands.

Postgres splits and folds nothing here. A word's weight is A in a name, B in labels, C in details, D in the body.
Hashes are lexemes that begin with #, which no word does.
"""

from __future__ import annotations

import itertools
import re
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from storage.records.search.relevance import WHOLE_NAME_SCORE, AskedText, AskedWord, Match, WordPlace, word_score
from storage.records.search.search import IndexDocument
from storage.records.search.tokens import edits

WEIGHTS: Mapping[WordPlace, str] = {
    WordPlace.NAME: "A",
    WordPlace.LABELS: "B",
    WordPlace.DETAILS: "C",
    WordPlace.BODY: "D",
}
_POSITION: Mapping[WordPlace, bytes] = {
    place: struct.pack(">xHH", 1, "DCBA".index(weight) << 14 | 1) for place, weight in WEIGHTS.items()
}
HASH = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True)
class WordQueries:
    """What documents must match (a tsquery), and what each way of having a word is worth.

    ways: for each asked word, queries with what a document that matches them is worth, the best first.
    """

    required: str
    ways: Sequence[Sequence[tuple[str, int]]]

    def score(self, name: str) -> tuple[str, dict[str, str]]:
        """What a document is worth that is asked for by these words and this name: SQL and its parameters.

        As SQL, because a function of the database would be called once for every document that matches.
        """
        parameters = {"name": name}
        terms = [f"case when name = %(name)s then {WHOLE_NAME_SCORE} else 0 end"]
        for number, ways in enumerate(self.ways):
            branches: list[str] = []
            for place, (query, worth) in enumerate(ways):
                parameters[f"way_{number}_{place}"] = query
                branches.append(f"when words @@ %(way_{number}_{place})s::tsquery then {worth}")
            terms.append(f"case {' '.join(branches)} else 0 end")
        return " + ".join(terms), parameters


def document_lexemes(document: IndexDocument) -> str:
    """A document's words as the text of a tsvector; each word stands at its best place."""
    return " ".join(f"'{word}':1{WEIGHTS[place]}" for word, place in _places(document).items())


def document_tsvector(document: IndexDocument) -> bytes:
    """The same as COPY takes it in binary, which Postgres need not read letter by letter.

    Source: tsvectorrecv of PostgreSQL: how many, then each word, a zero, how many positions, and those, whose two
    highest bits are the weight.
    """
    seen: set[str] = set()
    lexemes: list[bytes] = []
    for place, position in _POSITION.items():
        words = set(_words_at(document, place)) - seen
        if words:
            seen |= words
            # The zero that ends each word becomes the position of its place, for all words in one go.
            lexemes.append("\0".join([*words, ""]).encode().replace(b"\0", position))
    return struct.pack(">i", len(seen)) + b"".join(lexemes)


def _places(document: IndexDocument) -> Mapping[str, WordPlace]:
    """Each lexeme of a document with its best place."""
    places: dict[str, WordPlace] = {}
    for place in WEIGHTS:
        for word in _words_at(document, place):
            places.setdefault(word, place)
    return places


def _words_at(document: IndexDocument, place: WordPlace) -> Sequence[str]:
    words = document.words.get(place, ())
    return (*words, *(f"#{digits}" for digits in document.hashes)) if place is WordPlace.NAME else words


def deletes(word: str, maximum: int) -> list[int]:
    """Hashes (signed 32 bits) of the word with up to `maximum` letters left out.

    Two words within n edits have a form in common with at most n letters left out of each. Source: the symmetric
    deletion of SymSpell, Garbe 2012.
    """
    forms = {word}
    for count in range(1, maximum + 1):
        kept = itertools.combinations(word, len(word) - count)
        forms.update("".join(letters) for letters in kept)
    # Moved down into the range of Postgres' signed int. Two words that share a hash cost one more comparison.
    return sorted({zlib.crc32(form.encode()) - 2**31 for form in forms})


def kept_deletes(word: str) -> list[int]:
    """The deletes of a document's word: those that an asked word with its allowed edits may share."""
    if len(word) < 3 or word[0] == "#":
        return []
    # The shortest within one error of an asked word of four letters, and within two of one of eight (`allowed_edits`),
    # have three and six.
    return deletes(word, 1 if len(word) < 6 else 2)


def asked_deletes(text: AskedText) -> list[int]:
    """The deletes of all asked words that may have typing errors."""
    return sorted({form for word in text.words if word.edits for form in deletes(word.word, word.edits)})


def word_queries(text: AskedText, candidates: Iterable[tuple[str, str]]) -> WordQueries:
    """The queries of a text; `candidates`: known words with their stems, at least those that may match by error."""
    known = list(candidates)
    of_words = [_ways(word, known) for word in text.words]
    required = ("(" + " | ".join(term for _, terms in ways for term in terms) + ")" for ways in of_words)
    return WordQueries(" & ".join(required), [_worth(ways) for ways in of_words])


def _worth(ways: Iterable[tuple[Match, list[str]]]) -> list[tuple[str, int]]:
    return [
        (" | ".join(_weighted(term, WEIGHTS[place]) for term in terms), word_score(match, place))
        for match, terms in ways
        for place in sorted(WordPlace, reverse=True)
    ]


def _ways(word: AskedWord, known: Sequence[tuple[str, str]]) -> list[tuple[Match, list[str]]]:
    """The terms by which a document may have the word, by way, the best first."""
    exact = [word.word]
    if HASH.fullmatch(word.word):
        exact.append("#" + word.word)
    plural = [other for other, stem in known if stem == word.stem and other != word.word]
    one: list[str] = []
    two: list[str] = []
    if word.edits:
        for other, _ in known:
            distance = edits(word.word, other, word.edits)
            if distance == 1:
                one.append(other)
            elif distance == 2 and word.edits == 2:
                two.append(other)
    ways = [
        (Match.EXACT, _quoted(exact)),
        (Match.PLURAL, _quoted(plural)),
        (Match.PREFIX, [f"'{word.word}':*"] if word.begins else []),
        (Match.ONE_EDIT, _quoted(one)),
        (Match.TWO_EDITS, _quoted(two)),
    ]
    return [(match, terms) for match, terms in ways if terms]


def _weighted(term: str, weight: str) -> str:
    return term + weight if term.endswith(":*") else f"{term}:{weight}"


def _quoted(words: Iterable[str]) -> list[str]:
    # Nothing is escaped: a word is letters and digits alone (storage/records/search/tokens.py).
    return [f"'{word}'" for word in words]
