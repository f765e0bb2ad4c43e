"""The embedded engine: search in Postgres, for installations without Elasticsearch. `embedded_writing.py` fills it.

Chosen over tantivy because it serves any number of processes and machines, is written in transactions, and swaps a
build by a row that the query's own snapshot reads; tantivy has one writer per folder and no vectors. Words are split
by our own code; full text is used as an index of words. Typing errors are found through words with letters left out,
which is exact; pg_trgm misses one error in a word of four letters ("gril" shares no trigram but the first with "girl").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from storage.errors import EncoderUnavailable, StoreUnavailable
from storage.postgres import search_builds
from storage.postgres.connection import AsyncDatabase, Query, Rows, Script, load_statements, many
from storage.records.relevance import WHOLE_NAME_SCORE, AskedText, Hit
from storage.records.search import (
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
from storage.search.lexemes import asked_deletes, word_queries

SQL = load_statements(__file__)
ENGINE = "embedded"
RANKS = tuple(Rank)
MIN_EF_SEARCH, MAX_EF_SEARCH = 200, 1000


def statement(name: str, build: Build) -> str:
    """A statement for the tables of a build."""
    return SQL[name].replace("{matching}", SQL["matching"].strip()).replace("{build}", str(int(build.id)))


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
        """Postgres answers or nothing does."""
        return True

    async def close(self) -> None:
        """The database's connections are not this reader's."""


def find(kind: Kind, search: TextSearch) -> Script[Found]:
    """A text search, of one moment."""
    build = yield from _live_build(kind, MIN_EF_SEARCH)
    parameters = _filter_parameters(search.filters)
    scoring: dict[str, Any] = {}
    if search.text is not None:
        scoring = yield from _word_parameters(build, search.text)
        parameters["words"] = scoring.pop("words")
    hits: list[Hit] = []
    if search.limit:
        keys = SORTS[kind][search.sort]
        page = {
            "first": RANKS.index(keys.first) + 1,
            "second": RANKS.index(keys.second) + 1,
            "sign": -1 if keys.ascending else 1,
            "limit": search.limit,
            "offset": search.offset,
        }
        name = "relevant" if search.sort is Sort.RELEVANCE and search.text is not None else "sorted"
        hits = yield from many(statement(name, build), parameters | scoring | page, Hit)
    total = yield from Query(statement("total", build), parameters, lambda rows: int(rows[0]["total"]))
    facets = yield from _facets(build, search, parameters)
    return Found(hits=tuple(hits), total=total, facets=facets)


def nearest(kind: Kind, filters: Filters, vector: QueryVector, limit: int) -> Script[tuple[Hit, ...]]:
    """The documents of the largest cosine. Raises EncoderUnavailable for a build of another encoder."""
    build = yield from _live_build(kind, limit * 2)
    if build.encoder != vector.encoder:
        raise EncoderUnavailable(
            f"The index of {kind} was not built with this encoder. Rebuild it: darkroom rebuild {kind}"
        )
    parameters = {"vector": vector_text(vector.vector), "limit": limit, **_filter_parameters(filters)}
    return tuple((yield from many(statement("nearest", build), parameters, Hit)))


def _live_build(kind: Kind, ef_search: int) -> Script[Build]:
    yield from Query(SQL["one_snapshot"], {}, len)
    wide = min(MAX_EF_SEARCH, max(MIN_EF_SEARCH, ef_search))
    yield from Query(SQL["planned_for_these_values"], {"ef_search": wide}, len)
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
        parameters[facet.value] = [label_of(facet, value) for value in filters.wanted(facet)] or None
    return parameters


def _word_parameters(build: Build, text: AskedText) -> Script[dict[str, Any]]:
    asked = {"stems": sorted({word.stem for word in text.words}), "deletes": asked_deletes(text)}

    def pairs(rows: Rows) -> list[tuple[str, str]]:
        return [(row["word"], row["stem"]) for row in rows]

    candidates = yield from Query(statement("candidates", build), asked, pairs)
    queries = word_queries(text, candidates)
    return {
        "words": queries.required,
        "queries": queries.queries,
        "numbers": queries.numbers,
        "scores": queries.scores,
        "name": text.name,
        "whole_name": WHOLE_NAME_SCORE,
    }


def _facets(build: Build, search: TextSearch, parameters: Mapping[str, Any]) -> Script[FacetCounts]:
    """Facets without a filter of their own are counted in one scan, each other one in its own."""
    counts: dict[Facet, tuple[FacetCount, ...]] = dict.fromkeys(search.facets, ())
    filtered = [facet for facet in search.facets if search.filters.values.get(facet)]
    free = [facet for facet in search.facets if facet not in filtered]
    for facets in [free, *([facet] for facet in filtered)]:
        if not facets:
            continue
        without = {facet.value: None for facet in facets}
        asked = {**parameters, **without, "facets": [facet.value for facet in facets], "most": FACET_VALUES}
        rows = yield from Query(statement("facets", build), asked, list)
        for facet in facets:
            counts[facet] = tuple(
                FacetCount(row["value"], row["documents"]) for row in rows if row["facet"] == facet.value
            )
    return counts


def label_of(facet: Facet, value: str) -> str:
    """A facet's value as the column `labels` keeps it."""
    return f"{facet.value}={value}"


def vector_text(vector: bytes) -> str:
    """A vector as pgvector reads it."""
    return msgspec.json.encode(vector_numbers(vector)).decode()
