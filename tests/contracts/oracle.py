"""What a search must return, said plainly and slowly: every document looked at, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache

from storage.records.search.relevance import AskedWord, Hit, Match, WordPlace, asked, word_score
from storage.records.search.search import SORTS, Facet, FacetCount, Filters, IndexDocument, Kind, SearchQuery, Sort
from storage.records.search.tokens import stem


def distance(first: str, second: str) -> int:
    """Edits between two words, a swap of neighbours being one: the textbook's recursion over a table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            table[i][j] = min(
                table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
            )
            if i > 1 and j > 1 and first[i - 1] == second[j - 2] and first[i - 2] == second[j - 1]:
                table[i][j] = min(table[i][j], table[i - 2][j - 2] + 1)
    return table[-1][-1]


@cache
def way(word: AskedWord, other: str) -> Match | None:
    """The best way in which a document's word is the asked one."""
    if other == word.word:
        return Match.EXACT
    if stem(other) == word.stem:
        return Match.PLURAL
    if word.begins and other.startswith(word.word):
        return Match.PREFIX
    if word.edits and abs(len(other) - len(word.word)) <= word.edits:
        away = distance(word.word, other)
        if away <= word.edits:
            return Match.ONE_EDIT if away == 1 else Match.TWO_EDITS
    return None


def score(document: IndexDocument, text: str) -> int | None:
    """What a document is worth for a text; None when it lacks a word."""
    wanted = asked(text)
    total = 0
    for word in wanted.words:
        worths = [
            word_score(match, place)
            for place, words in document.words.items()
            for match in {way(word, other) for other in words}
            if match is not None
        ]
        if word.word in document.hashes and len(word.word) >= 8:
            worths.append(word_score(Match.EXACT, WordPlace.NAME))
        if not worths:
            return None
        total += max(worths)
    return total + (document.name == wanted.name)


def passes(document: IndexDocument, filters: Filters) -> bool:
    """Whether the filters let a document through."""
    return (
        all(
            set(filters.wanted(facet)) & set(document.values.get(facet, ())) for facet in Facet if filters.wanted(facet)
        )
        and all(document.ranks[rank] >= number for rank, number in filters.at_least.items())
        and (filters.levels is None or bool(document.levels & filters.levels))
        and (filters.published_from is None or document.published_at >= filters.published_from)
        and (filters.published_before is None or document.published_at < filters.published_before)
    )


def matches(documents: Sequence[IndexDocument], query: SearchQuery, kind: Kind) -> list[Hit]:
    """Every match in order, also beyond the page."""
    found: list[tuple[int, IndexDocument]] = []
    for document in documents:
        worth = score(document, query.text) if query.text.strip() else 0
        if worth is not None and passes(document, query.filters):
            found.append((worth, document))
    keys = SORTS[kind][query.sort]
    sign = 1 if keys.ascending else -1

    def order(item: tuple[int, IndexDocument]) -> tuple[int, int, int, int]:
        worth, document = item
        first, second = document.ranks[keys.first], document.ranks[keys.second]
        relevance = -worth if query.sort is Sort.RELEVANCE else 0
        return relevance, sign * first, sign * second, sign * document.id

    return [Hit(document.id, float(worth)) for worth, document in sorted(found, key=order)]


def facet(documents: Sequence[IndexDocument], query: SearchQuery, facet: Facet, kind: Kind) -> tuple[FacetCount, ...]:
    """The values of a facet among what matches everything but its own filter, the most frequent first."""
    others = SearchQuery(text=query.text, filters=query.filters.without(facet))
    found = {hit.id for hit in matches(documents, others, kind)}
    counts = Counter(value for document in documents if document.id in found for value in document.values[facet])
    return tuple(
        FacetCount(value, count) for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    )
