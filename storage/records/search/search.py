"""What a search asks, what it returns, and what an engine keeps of a document: the same for every engine."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec

from storage.errors import InvalidRequest
from storage.records.search.relevance import MAX_WORDS, Hit, WordPlace
from storage.records.search.tokens import asked_words

WINDOW = 1_000
"""A search ranks this many hits and pages through them."""
MAX_TEXT = 1_000
FACET_VALUES = 100
"""A facet lists this many values, those of most documents first."""


class Kind(StrEnum):
    """What is searched for; each kind has an index of its own."""

    MODEL = "models"
    IMAGE = "images"
    CREATOR = "creators"


class SearchMode(StrEnum):
    """By words, by meaning, or by both."""

    TEXT = "text"
    SEMANTIC = "semantic"
    FUSED = "fused"


class Facet(StrEnum):
    """What hits are filtered and counted by."""

    TYPE = "type"
    BASE_MODEL = "base_model"
    TAG = "tag"
    CREATOR = "creator"
    SHAPE = "shape"


class Rank(StrEnum):
    """Numbers that documents are sorted by. The order of the members is that of the embedded engine's columns."""

    LIKES = "likes"
    DOWNLOADS = "downloads"
    COMMENTS = "comments"
    COLLECTED = "collected"
    PICTURES = "pictures"
    NEWEST = "newest"
    MODELS = "models"
    WIDTH = "width"
    HEIGHT = "height"
    PIXELS = "pixels"


class Sort(StrEnum):
    """How the hits of a text search are ordered. Equals are ordered by id, as in the catalogue's lists."""

    RELEVANCE = "relevance"
    RATED = "rated"
    DOWNLOADED = "downloaded"
    DISCUSSED = "discussed"
    COLLECTED = "collected"
    PICTURED = "pictured"
    PRODUCTIVE = "productive"
    LARGEST = "largest"
    NEWEST = "newest"
    OLDEST = "oldest"


class SortKeys(msgspec.Struct, frozen=True):
    """Two numbers, largest first unless `ascending`; then the id in the same direction."""

    first: Rank
    second: Rank
    ascending: bool = False


_BY_AGE = {
    Sort.NEWEST: SortKeys(Rank.NEWEST, Rank.NEWEST),
    Sort.OLDEST: SortKeys(Rank.NEWEST, Rank.NEWEST, ascending=True),
}
SORTS: Mapping[Kind, Mapping[Sort, SortKeys]] = {
    Kind.MODEL: {
        Sort.RELEVANCE: SortKeys(Rank.LIKES, Rank.DOWNLOADS),
        Sort.RATED: SortKeys(Rank.LIKES, Rank.DOWNLOADS),
        Sort.DOWNLOADED: SortKeys(Rank.DOWNLOADS, Rank.LIKES),
        Sort.DISCUSSED: SortKeys(Rank.COMMENTS, Rank.LIKES),
        Sort.COLLECTED: SortKeys(Rank.COLLECTED, Rank.LIKES),
        Sort.PICTURED: SortKeys(Rank.PICTURES, Rank.LIKES),
        **_BY_AGE,
    },
    Kind.IMAGE: {
        Sort.RELEVANCE: SortKeys(Rank.LIKES, Rank.COMMENTS),
        Sort.RATED: SortKeys(Rank.LIKES, Rank.COMMENTS),
        Sort.DISCUSSED: SortKeys(Rank.COMMENTS, Rank.LIKES),
        Sort.COLLECTED: SortKeys(Rank.COLLECTED, Rank.LIKES),
        Sort.LARGEST: SortKeys(Rank.PIXELS, Rank.LIKES),
        **_BY_AGE,
    },
    Kind.CREATOR: {
        Sort.RELEVANCE: SortKeys(Rank.MODELS, Rank.NEWEST),
        Sort.PRODUCTIVE: SortKeys(Rank.MODELS, Rank.NEWEST),
        **_BY_AGE,
    },
}
"""The orders of each kind. For relevance these come after the score."""

FACETS: Mapping[Kind, tuple[Facet, ...]] = {
    Kind.MODEL: (Facet.TYPE, Facet.BASE_MODEL, Facet.TAG, Facet.CREATOR),
    Kind.IMAGE: tuple(Facet),
    Kind.CREATOR: (Facet.TYPE, Facet.BASE_MODEL),
}
"""What the documents of each kind have."""

ENCODED: frozenset[Kind] = frozenset({Kind.MODEL, Kind.IMAGE})
"""The kinds that are found by meaning. A creator's name has none."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What hits must be. Of several values of one facet one is enough; tags and creators are compared without case.

    `levels`: browsing levels as bits, of which a hit has at least one. `at_least`: numbers that a hit reaches. Times
    are microseconds since 1970 of the newest version's publication, or of an image's arrival; `published_before` is
    not included.
    """

    values: Mapping[Facet, tuple[str, ...]] = {}
    at_least: Mapping[Rank, int] = {}
    levels: int | None = None
    published_from: int | None = None
    published_before: int | None = None

    def wanted(self, facet: Facet) -> tuple[str, ...]:
        """The values of a facet as documents keep them, sorted; empty for any."""
        return tuple(sorted({facet_value(facet, value) for value in self.values.get(facet, ())}))

    def without(self, facet: Facet) -> Filters:
        """The same filters with this facet left out."""
        others = {name: values for name, values in self.values.items() if name is not facet}
        return msgspec.structs.replace(self, values=others)


def facet_value(facet: Facet, value: str) -> str:
    """A facet's value as documents keep it."""
    return value.lower() if facet is Facet.TAG or facet is Facet.CREATOR else value


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a search. Raises InvalidRequest for one that reaches beyond the window or cannot be carried out."""

    text: str = ""
    mode: SearchMode = SearchMode.TEXT
    filters: Filters = Filters()
    facets: tuple[Facet, ...] = ()
    sort: Sort = Sort.RELEVANCE
    limit: int = 20
    offset: int = 0

    def __post_init__(self) -> None:
        wrong: dict[str, str] = {}
        if self.limit < 0 or self.offset < 0 or self.limit + self.offset > WINDOW:
            wrong["limit"] = f"a search pages through its first {WINDOW:,} hits; narrow it by words or filters"
        if len(self.text) > MAX_TEXT:
            wrong["query"] = f"must have {MAX_TEXT:,} characters at most"
        elif len(asked_words(self.text)) > MAX_WORDS:
            wrong["query"] = f"must have {MAX_WORDS} words at most"
        if self.mode is not SearchMode.TEXT and not self.text.strip():
            wrong["query"] = f"is needed for mode={self.mode}"
        if self.mode is not SearchMode.TEXT and self.sort is not Sort.RELEVANCE:
            wrong["sort"] = f"mode={self.mode} is ordered by relevance; leave sort out or use mode=text"
        if wrong:
            raise InvalidRequest(wrong)


def check_kind(kind: Kind, query: SearchQuery) -> None:
    """Raises InvalidRequest for what the documents of a kind do not have."""
    wrong: dict[str, str] = {}
    if query.mode is not SearchMode.TEXT and kind not in ENCODED:
        wrong["mode"] = f"{kind} are found by words only; use mode=text"
    if query.sort not in SORTS[kind]:
        wrong["sort"] = f"{kind} are sorted by one of: {', '.join(SORTS[kind])}"
    if not set(query.facets) <= set(FACETS[kind]):
        wrong["facets"] = f"{kind} are counted by: {', '.join(FACETS[kind])}"
    if wrong:
        raise InvalidRequest(wrong)


class FacetCount(msgspec.Struct, frozen=True):
    """How many documents have a value."""

    value: str
    count: int


FacetCounts = Mapping[Facet, tuple[FacetCount, ...]]


class SearchHits(msgspec.Struct, frozen=True, kw_only=True):
    """A page of hits, best first.

    `total` counts every document that matches, also those beyond the window. A semantic or fused search leaves nothing
    out, it only orders, so there it counts what the filters let through. Each facet counts the documents that match
    everything but its own filter. `degraded` names what was left out because it is unavailable: `semantic`.
    """

    hits: tuple[Hit, ...]
    total: int
    facets: FacetCounts
    degraded: tuple[str, ...] = ()


class IndexDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine keeps of a row, whatever the row is.

    words: by place, folded, each once. name: the whole name, folded. hashes: lower-case hex, found when asked for
    whole. levels: browsing level bits. published_at: microseconds since 1970. vector: float32, little-endian, of
    length 1; empty when there is none.
    """

    id: int
    revision: int
    name: str
    words: Mapping[WordPlace, tuple[str, ...]]
    hashes: tuple[str, ...]
    values: Mapping[Facet, tuple[str, ...]]
    levels: int
    published_at: int
    ranks: Mapping[Rank, int]
    vector: bytes = b""


class Removal(msgspec.Struct, frozen=True, kw_only=True):
    """A row that is no longer shown, at the revision that says so."""

    id: int
    revision: int


def vector_numbers(vector: bytes) -> list[float]:
    """The numbers of a vector that is kept as bytes."""
    return list(struct.unpack(f"<{len(vector) // 4}f", vector))


class BuildState(StrEnum):
    """A build is made, filled, then read, then kept for a while for open readers."""

    PREPARING = "preparing"
    BUILDING = "building"
    LIVE = "live"
    RETIRED = "retired"


class Build(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `search_builds`. `encoder` and `dimensions` say whose vectors it holds; None when it holds none.

    `vector_segments`: in so many graphs the embedded engine keeps them, by id.
    """

    id: int
    kind: Kind
    engine: str
    encoder: str | None
    dimensions: int | None
    state: BuildState
    created_at: datetime
    retired_at: datetime | None
    vector_segments: int = 1


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a batch: how many are in the index now, how many it had newer, and those it refused with why."""

    stored: int
    superseded: int
    refused: Mapping[int, str] = {}
