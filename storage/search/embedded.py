"""The embedded engine: search in Postgres, for installations without Elasticsearch. `embedded_writer.py` fills it.

Chosen over tantivy because it serves any number of processes and machines, is written in transactions, and swaps a
build by a row that the query's own snapshot reads; tantivy has one writer per folder and no vectors. Words are split
by our own code; full text is used as an index of words. Typing errors are found through words with letters left out,
which is exact; pg_trgm misses one error in a word of four letters ("gril" shares no trigram but the first with "girl").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from storage.errors import EncoderUnavailable, StoreUnavailable
from storage.postgres.connection import AsyncDatabase, Query, Rows, Script, as_record, load_statements, many
from storage.postgres.search import search_builds
from storage.records.search.relevance import AskedText, Hit
from storage.records.search.search import (
    FACET_VALUES,
    SORTS,
    Build,
    Facet,
    FacetCount,
    FacetCounts,
    Filters,
    Kind,
    Rank,
    Sort,
    vector_numbers,
)
from storage.search.gateway import Found, QueryVector, TextSearch
from storage.search.lexemes import WordQueries, asked_deletes, word_queries

SQL = load_statements(__file__)
ENGINE = "embedded"
RANKS = tuple(Rank)
EF_SEARCH, FILTERED_EF_SEARCH, LEAST_EF_SEARCH = 200, 1000, 80
"""How many candidates a search of the vectors keeps, shared out among the segments, and at least in each of them."""
MAX_EF_SEARCH = 1000
"""What pgvector takes."""
FEW = 5_000
"""So many documents a graph are compared with a vector one by one faster than the graphs find a few that pass."""
EVERY_ROW = "true"
LOOKED_AT = 3
"""How many times as many as are asked for are taken from the approximate index."""


def statement(name: str, build: Build, **parts: str) -> str:
    """A statement for the tables of a build; `parts` stand for what is in braces."""
    text = SQL[name]
    for part, meaning in {"counted": SQL["counted"], "matching": SQL["matching"], **parts}.items():
        text = text.replace("{" + part + "}", meaning.strip())
    # Through int: the table's name is the one value that stands in the text itself.
    return text.replace("{build}", str(int(build.id)))


class EmbeddedReader:
    """Search in Postgres for the API."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database

    async def find(self, kind: Kind, search: TextSearch) -> Found:
        """As `SearchReader.find`."""
        return await self._database.run(find(kind, search))

    async def nearest(self, kind: Kind, filters: Filters, vector: QueryVector, limit: int) -> tuple[Hit, ...]:
        """As `SearchReader.nearest`."""
        return await self._database.run(nearest(kind, filters, vector, limit))

    async def alive(self) -> bool:
        """Postgres responds or nothing does."""
        return True

    async def close(self) -> None:
        """The database's connections are not this reader's."""


def find(kind: Kind, search: TextSearch) -> Script[Found]:
    """A text search, of one moment."""
    build = yield from _live_build(kind)
    parameters = _filter_parameters(search.filters)
    filtered = [facet for facet in search.facets if search.filters.values.get(facet)]
    free = [facet for facet in search.facets if facet not in filtered]
    score = "0"
    if search.text is not None:
        queries = yield from _word_queries(build, search.text)
        parameters["words"] = queries.required
        if search.sort is Sort.RELEVANCE:
            score, scored = queries.score(search.text.name)
            parameters |= scored
    # Only counted: nothing has to be kept for a page or for facets.
    if not search.limit and not free:
        total = yield from Query(statement("total", build), parameters, lambda rows: int(rows[0]["total"]))
        return Found(hits=(), total=total, facets=(yield from _facets(build, search.facets, filtered, parameters)))
    keys = SORTS[kind][search.sort]
    page = {
        # Arrays of Postgres begin at 1.
        "first": RANKS.index(keys.first) + 1,
        "second": RANKS.index(keys.second) + 1,
        "sign": -1 if keys.ascending else 1,
        "limit": search.limit,
        "offset": search.offset,
        **_counted(free),
    }
    text = statement("found", build, score=score, labels="labels" if free else "null::text[]")
    found = yield from Query(text, parameters | page, lambda rows: rows[0])
    others = yield from _facets(build, search.facets, filtered, parameters)
    return Found(
        hits=tuple(as_record(Hit, hit) for hit in found["hits"]),
        total=found["total"],
        facets={**others, **_facet_counts(free, found["counts"])},
    )


def nearest(kind: Kind, filters: Filters, vector: QueryVector, limit: int) -> Script[tuple[Hit, ...]]:
    """The documents of the largest cosine. Raises EncoderUnavailable for a build of another encoder."""
    filtered = filters != Filters()
    build = yield from _live_build(kind)
    if build.encoder != vector.encoder:
        raise EncoderUnavailable(
            f"The index of {kind} was not built with this encoder. Rebuild it: darkroom rebuild {kind}"
        )
    parameters = {"vector": vector_text(vector.vector), "limit": limit, **_filter_parameters(filters)}
    if filtered:
        few = FEW * build.vector_segments
        counted = Query(statement("some", build), parameters | {"maximum": few + 1}, lambda rows: rows[0]["documents"])
        if (yield from counted) <= few:
            return tuple((yield from many(statement("nearest_of_few", build), parameters, Hit)))
    segments = build.vector_segments
    looked_at = looked_at_in_each(limit, segments)
    ef_search = max(LEAST_EF_SEARCH, (FILTERED_EF_SEARCH if filtered else EF_SEARCH) // segments, looked_at)
    yield from Query(SQL["wide"], {"ef_search": min(MAX_EF_SEARCH, ef_search)}, len)
    each = [statement("nearest_of_segment", build, segment=part) for part in segments_of(build)]
    search = statement("nearest", build, each="\n union all ".join(each))
    return tuple((yield from many(search, parameters | {"looked_at": looked_at}, Hit)))


def looked_at_in_each(limit: int, segments: int) -> int:
    """How many a segment returns so that the nearest `limit` of all are among them.

    Ids are spread evenly over the segments, so a segment has its share of the nearest, give or take a few times the
    square root of it; four standard deviations and four more are taken.
    """
    share = limit / segments
    return min(limit, math.ceil(share + 4 * math.sqrt(share) + 4)) * LOOKED_AT


def segments_of(build: Build) -> list[str]:
    """For each segment of a build's vectors, which rows it has, as a condition."""
    if build.vector_segments == 1:
        return [EVERY_ROW]
    return [f"mod(id, {int(build.vector_segments)}) = {number}" for number in range(build.vector_segments)]


def _live_build(kind: Kind) -> Script[Build]:
    # Before anything is read: Postgres takes an isolation level only then.
    yield from Query(SQL["one_snapshot"], {}, len)
    yield from Query(SQL["planned_for_these_values"], {}, len)
    build = yield from search_builds.live(kind, ENGINE)
    if build is None:
        raise StoreUnavailable(f"There is no search index of {kind} yet. Make it: darkroom rebuild {kind}")
    return build


def _filter_parameters(filters: Filters) -> dict[str, Any]:
    parameters: dict[str, Any] = {
        "words": None,
        "levels": filters.levels,
        "published_from": filters.published_from,
        "published_before": filters.published_before,
    }
    parameters["places"] = [RANKS.index(rank) + 1 for rank in filters.at_least] or None
    parameters["at_least"] = list(filters.at_least.values()) or None
    for facet in Facet:
        # None and not an empty list: the statement passes over a condition of null, but nothing shares a label with
        # none.
        parameters[facet.value] = [label_of(facet, value) for value in filters.wanted(facet)] or None
    return parameters


def _word_queries(build: Build, text: AskedText) -> Script[WordQueries]:
    asked = {"stems": sorted({word.stem for word in text.words}), "deletes": asked_deletes(text)}

    def pairs(rows: Rows) -> list[tuple[str, str]]:
        return [(row["word"], row["stem"]) for row in rows]

    candidates = yield from Query(statement("candidates", build), asked, pairs)
    return word_queries(text, candidates)


def _facets(
    build: Build, facets: Iterable[Facet], filtered: Iterable[Facet], parameters: Mapping[str, Any]
) -> Script[FacetCounts]:
    """No values for each facet, but those for the ones with a filter of their own, which it leaves out."""
    counts: dict[Facet, tuple[FacetCount, ...]] = dict.fromkeys(facets, ())
    for facet in filtered:
        asked = {**parameters, facet.value: None, **_counted([facet])}
        rows = yield from Query(statement("facets", build), asked, list)
        counts |= _facet_counts([facet], rows)
    return counts


def _counted(facets: Iterable[Facet]) -> dict[str, Any]:
    return {"facets": [label_of(facet, "") for facet in facets], "maximum": FACET_VALUES}


def _facet_counts(facets: Iterable[Facet], rows: Rows) -> dict[Facet, tuple[FacetCount, ...]]:
    return {
        facet: tuple(FacetCount(row["value"], row["documents"]) for row in rows if row["facet"] == facet.value)
        for facet in facets
    }


def label_of(facet: Facet, value: str) -> str:
    """A facet's value as the column `labels` keeps it."""
    return f"{facet.value}={value}"


def vector_text(vector: bytes) -> str:
    """A vector as pgvector reads it."""
    return msgspec.json.encode(vector_numbers(vector)).decode()
