"""What search promises, whichever engine serves it. The API asks `Search`; flows write through a `SearchWriter`.

A document is written with its row's revision: an index never goes back to an older one, also after a removal and
whatever the order of arrival. Writes go to every build that `search_builds` lists; searches read the live one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from storage.errors import EncoderUnavailable
from storage.records.search.relevance import FUSED, AskedText, Hit, asked, fuse
from storage.records.search.search import (
    Build,
    Facet,
    FacetCounts,
    Filters,
    IndexDocument,
    Kind,
    Removal,
    SearchHits,
    SearchMode,
    SearchQuery,
    Sort,
    Written,
    check_kind,
)
from storage.search.encoder import Encoder
from storage.thread_pools import ThreadPool

SEMANTIC = "semantic"


class TextSearch(msgspec.Struct, frozen=True, kw_only=True):
    """A search by words and filters; `text` None: whatever the filters let through."""

    text: AskedText | None
    filters: Filters
    facets: tuple[Facet, ...]
    sort: Sort
    offset: int
    limit: int


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Hits of a text search, how many match in all, and the counts of the facets that were asked for."""

    hits: tuple[Hit, ...]
    total: int
    facets: FacetCounts


class QueryVector(msgspec.Struct, frozen=True):
    """A text's vector (float32, little-endian, length 1) and the name of the encoder that made it."""

    encoder: str
    vector: bytes


class SearchReader(Protocol):
    """An engine, as the API asks it. Every method raises StoreUnavailable while it is unavailable or has no live
    build."""

    async def find(self, kind: Kind, search: TextSearch) -> Found:
        """Every document that has all asked words and passes the filters.

        What a hit is and how hits are ordered: `storage.records.search.relevance`.
        """
        ...

    async def nearest(self, kind: Kind, filters: Filters, vector: QueryVector, limit: int) -> tuple[Hit, ...]:
        """The documents with the largest cosine among those that pass the filters; at least 95 % of the first 20.

        Raises EncoderUnavailable when the live build holds the vectors of another encoder.
        """
        ...

    async def alive(self) -> bool:
        """Whether the engine responds."""
        ...

    async def close(self) -> None:
        """Give the connections back."""
        ...


class SearchWriter(Protocol):
    """An engine, as flows write it. Every method may be repeated, and raises StoreUnavailable while it is
    unavailable."""

    engine: str

    def create(self, build: Build) -> None:
        """Make the empty index of a build, if it is not there."""
        ...

    def write(self, build: Build, documents: Sequence[IndexDocument], removals: Sequence[Removal] = ()) -> Written:
        """Put documents and take removed ones out, each id once. Older revisions than the index has are passed over.

        Raises NotFound when the build's index is not there (any more).
        """
        ...

    def load(self, build: Build, documents: Sequence[IndexDocument]) -> Written:
        """As `write`, by the engine's fastest path: for a build that is being filled. Several threads may."""
        ...

    def complete(self, build: Build) -> None:
        """After a fill: what a build needs to be searched fast. Writes may go on meanwhile."""
        ...

    def refresh(self, build: Build) -> None:
        """What was written is found from now on."""
        ...

    def swap(self, build: Build) -> None:
        """Searches read this build from now on: one moment for all readers."""
        ...

    def reading(self, kind: Kind) -> int | None:
        """The id of the build that searches read; None without one."""
        ...

    def drop(self, build: Build) -> None:
        """Remove the index of a build that is not live."""
        ...

    def revisions(self, build: Build, *, after: int, limit: int) -> list[tuple[int, int]]:
        """Ids above `after` that the build has, in order, each with its revision."""
        ...

    def existing(self) -> list[int]:
        """The numbers of the builds whose index is there, for finding strays."""
        ...

    def drop_stray(self, number: int) -> None:
        """Remove the index of a build that no row names."""
        ...

    def close(self) -> None:
        """Give the connections back."""
        ...


class Search:
    """Searches of the API: text, semantic, fused."""

    def __init__(self, reader: SearchReader, encoder: Encoder, threads: ThreadPool) -> None:
        self.reader, self._encoder, self._threads = reader, encoder, threads

    async def find(self, kind: Kind, query: SearchQuery) -> SearchHits:
        """A page of a search.

        Raises InvalidRequest for what the kind does not have, StoreUnavailable while the engine is unavailable,
        EncoderUnavailable when `mode=semantic` has no encoder.
        """
        check_kind(kind, query)
        match query.mode:
            case SearchMode.TEXT:
                return await self._by_words(kind, query)
            case SearchMode.SEMANTIC:
                return await self._by_meaning(kind, query)
            case SearchMode.FUSED:
                try:
                    return await self._by_both(kind, query)
                except EncoderUnavailable:
                    hits = await self._by_words(kind, query)
                    return msgspec.structs.replace(hits, degraded=(SEMANTIC,))

    async def _by_words(self, kind: Kind, query: SearchQuery) -> SearchHits:
        text = asked(query.text) if query.text.strip() else None
        if text is not None and not text.words:
            return SearchHits(hits=(), total=0, facets=dict.fromkeys(query.facets, ()))
        search = TextSearch(
            text=text,
            filters=query.filters,
            facets=query.facets,
            sort=query.sort,
            offset=query.offset,
            limit=query.limit,
        )
        found = await self.reader.find(kind, search)
        return SearchHits(hits=found.hits, total=found.total, facets=found.facets)

    async def _by_meaning(self, kind: Kind, query: SearchQuery) -> SearchHits:
        vector = await self._vector(query.text)
        end = query.offset + query.limit
        hits, counted = await asyncio.gather(
            # A page of nothing asks for the counts alone, but an engine refuses to look for no neighbour.
            self.reader.nearest(kind, query.filters, vector, max(end, 1)),
            self._counts(kind, query),
        )
        return SearchHits(hits=hits[query.offset : end], total=counted.total, facets=counted.facets)

    async def _by_both(self, kind: Kind, query: SearchQuery) -> SearchHits:
        vector = await self._vector(query.text)
        words = SearchQuery(text=query.text, filters=query.filters, limit=FUSED)
        near, text, counted = await asyncio.gather(
            self.reader.nearest(kind, query.filters, vector, FUSED),
            self._by_words(kind, words),
            self._counts(kind, query),
        )
        fused = fuse([hit.id for hit in text.hits], [hit.id for hit in near])
        page = tuple(fused[query.offset : query.offset + query.limit])
        return SearchHits(hits=page, total=counted.total, facets=counted.facets)

    async def _counts(self, kind: Kind, query: SearchQuery) -> Found:
        everything = TextSearch(
            text=None, filters=query.filters, facets=query.facets, sort=Sort.RELEVANCE, offset=0, limit=0
        )
        return await self.reader.find(kind, everything)

    async def _vector(self, text: str) -> QueryVector:
        # Milliseconds of arithmetic, so not in the event loop.
        vectors = await self._threads.run(self._encoder.encode, [text])
        # After the encoding: the name loads the encoder, which must happen in its thread and not here.
        return QueryVector(self._encoder.name, vectors[0].tobytes())
