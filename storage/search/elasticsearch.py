"""The Elasticsearch engine, as the API asks it. `elasticsearch_writer.py` makes and fills its indexes.

It keeps to what every licence and every cluster offers: no scripts, no fusion by the server. Words come split from our
own code, so the analyzer only parts them at spaces. Every way of having a word is a constant score, so hits are ordered
as `storage.records.search.relevance` says and not by how rare a word is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, TypeVar, cast

from elastic_transport import HttpxAsyncHttpNode, ObjectApiResponse, TransportError
from elasticsearch import ApiError, AsyncElasticsearch

from storage.errors import EncoderUnavailable, StoreUnavailable
from storage.records.search.relevance import WHOLE_NAME_SCORE, AskedText, AskedWord, Hit, Match, WordPlace, word_score
from storage.records.search.search import (
    FACET_VALUES,
    SORTS,
    Build,
    Facet,
    FacetCount,
    FacetCounts,
    Filters,
    Kind,
    Sort,
    vector_numbers,
)
from storage.search.gateway import Found, QueryVector, TextSearch
from storage.settings import SearchSettings

T = TypeVar("T")

ENGINE = "elasticsearch"
CANDIDATES, FILTERED_CANDIDATES, MAX_CANDIDATES = 200, 1000, 10_000
"""How many documents a search of the vectors keeps; the last is what Elasticsearch takes."""


def alias(settings: SearchSettings, kind: Kind) -> str:
    """The name that searches of a kind read."""
    return f"{settings.index_prefix}-{kind}"


def index_name(settings: SearchSettings, build: Build) -> str:
    """The index of one build."""
    return f"{settings.index_prefix}-{build.kind}-{build.id}"


def writing_alias(settings: SearchSettings, build: Build) -> str:
    """The name that one build is written by."""
    return f"{index_name(settings, build)}-writing"


def words_field(place: WordPlace) -> str:
    """The field of the words that stand at a place."""
    return f"{place.name.lower()}_words"


def stems_field(place: WordPlace) -> str:
    """The field of their stems."""
    return f"{place.name.lower()}_stems"


def vector_field(encoder: str) -> str:
    """The field of the vectors of one encoder. A query of another encoder finds no such field."""
    return f"vector_{encoder}"


def unavailable(error: Exception) -> StoreUnavailable:
    """What is raised for an Elasticsearch that does not respond or cannot."""
    reason = (
        f"returns {error.meta.status}" if isinstance(error, ApiError) else f"does not respond ({type(error).__name__})"
    )
    return StoreUnavailable(f"Elasticsearch {reason}. Try again in a few seconds.")


def passing(error: ApiError) -> bool:
    """Whether the same request may succeed later."""
    return error.meta.status in (429, 502, 503, 504)


class ElasticsearchReader:
    """Search in Elasticsearch for the API."""

    def __init__(self, settings: SearchSettings) -> None:
        self._settings = settings
        self._client = AsyncElasticsearch(
            settings.elasticsearch_url.get_secret_value(),
            # By default the async client takes aiohttp; httpx is there in any case.
            node_class=HttpxAsyncHttpNode,
            request_timeout=settings.timeout_seconds,
            max_retries=1,
            # A search that took too long would take as long again, of a cluster that is busy already.
            retry_on_timeout=False,
        )

    async def find(self, kind: Kind, search: TextSearch) -> Found:
        """As `SearchReader.find`."""
        response = await self._ask(
            kind, self._client.search(index=alias(self._settings, kind), **find_request(kind, search))
        )
        # The id ends every order, so it is read there: documents themselves are not stored (_source is off).
        hits = tuple(Hit(int(hit["sort"][-1]), float(hit["_score"] or 0)) for hit in response["hits"]["hits"])
        return Found(hits=hits, total=int(response["hits"]["total"]["value"]), facets=_facet_counts(search, response))

    async def nearest(self, kind: Kind, filters: Filters, vector: QueryVector, limit: int) -> tuple[Hit, ...]:
        """As `SearchReader.nearest`."""
        name, field = alias(self._settings, kind), vector_field(vector.encoder)
        passing = None
        if filters != Filters():
            counted = self._client.count(index=name, query={"bool": {"filter": _filters(filters)}})
            passing = int((await self._ask(kind, counted))["count"])
        request = nearest_request(field, filters, vector.vector, limit, passing)
        response = await self._ask(kind, self._client.search(index=name, **request))
        # Elasticsearch's score of a dot product is (1 + cosine) / 2.
        hits = tuple(Hit(int(hit["sort"][-1]), 2 * float(hit["_score"]) - 1) for hit in response["hits"]["hits"])
        if not hits:
            # A field that is not there finds nothing: that must not be taken for an empty result.
            fields = await self._ask(kind, self._client.indices.get_field_mapping(index=name, fields=field))
            if not any(index["mappings"] for index in fields.values()):
                raise EncoderUnavailable(
                    f"The index of {kind} was not built with this encoder. Rebuild it: darkroom rebuild {kind}"
                )
        return hits

    async def alive(self) -> bool:
        """As `SearchReader.alive`."""
        return await self._client.ping()

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.close()

    async def _ask(self, kind: Kind, call: Awaitable[ObjectApiResponse[Any]]) -> Mapping[str, Any]:
        try:
            return cast(Mapping[str, Any], (await call).body)
        except TransportError as error:
            raise unavailable(error) from error
        except ApiError as error:
            if error.error == "index_not_found_exception":
                raise StoreUnavailable(
                    f"There is no search index of {kind} yet. Make it: darkroom rebuild {kind}"
                ) from error
            if passing(error):
                raise unavailable(error) from error
            raise


def find_request(kind: Kind, search: TextSearch) -> dict[str, Any]:
    """A text search as Elasticsearch takes it.

    The filters of facets come after the counting, so that each facet can leave out its own.
    """
    query: dict[str, Any] = {"filter": _plain_filters(search.filters)}
    if search.text is not None:
        query["must"] = [_word_query(word) for word in search.text.words]
        query["should"] = [_constant("term", "name", search.text.name, WHOLE_NAME_SCORE)]
    values = {facet: _facet_filter(search.filters, facet) for facet in Facet if search.filters.wanted(facet)}
    request: dict[str, Any] = {
        "from_": search.offset,
        "size": search.limit,
        # By default hits are counted up to 10,000 only.
        "track_total_hits": True,
        # Without it no score is computed where something else than it orders.
        "track_scores": search.text is not None,
        "source": False,
        "sort": _sort(kind, search.sort, search.text),
        "query": {"bool": query},
    }
    if not search.facets:
        query["filter"] += values.values()
        return request
    if values:
        request["post_filter"] = {"bool": {"filter": list(values.values())}}
    request["aggregations"] = {
        facet.value: {
            "filter": {"bool": {"filter": [other for name, other in values.items() if name is not facet]}},
            "aggregations": {"values": _counted(facet)},
        }
        for facet in search.facets
    }
    return request


def nearest_request(field: str, filters: Filters, vector: bytes, limit: int, passing: int | None) -> dict[str, Any]:
    """A search by vector as Elasticsearch takes it: the filters hold while the graph is walked.

    `passing`: how many documents pass the filters, if there are any. Where as many as that are kept, each of them is
    compared, and none is missed: a graph of which little passes falls into parts that are not reached.
    """
    least = CANDIDATES if passing is None else passing if passing <= MAX_CANDIDATES else FILTERED_CANDIDATES
    return {
        "size": limit,
        "source": False,
        "sort": [{"_score": "desc"}, {"id": "asc"}],
        "knn": {
            "field": field,
            "query_vector": vector_numbers(vector),
            "k": limit,
            "num_candidates": min(MAX_CANDIDATES, max(least, limit * 2)),
            "filter": _filters(filters),
        },
    }


def _word_query(word: AskedWord) -> dict[str, Any]:
    ways = [way for place in WordPlace for way in _ways(word, place)]
    # The shortest hashes, AutoV1 and CRC32, have eight digits.
    if len(word.word) >= 8:
        ways.append(_constant("term", "hashes", word.word, word_score(Match.EXACT, WordPlace.NAME)))
    return {"dis_max": {"queries": ways}}


def _ways(word: AskedWord, place: WordPlace) -> list[dict[str, Any]]:
    """What each way of having a word at a place is worth; the best that a document has counts."""
    field = words_field(place)
    ways = [
        _constant("term", field, word.word, word_score(Match.EXACT, place)),
        _constant("term", stems_field(place), word.stem, word_score(Match.PLURAL, place)),
    ]
    if word.begins:
        ways.append(_constant("prefix", field, word.word, word_score(Match.PREFIX, place)))
    for edits, match in ((1, Match.ONE_EDIT), (2, Match.TWO_EDITS)):
        if edits <= word.edits:
            # constant_score looks at every word within the edits; the default rewriting only at 50 of them.
            fuzzy = {"value": word.word, "fuzziness": edits, "transpositions": True, "rewrite": "constant_score"}
            ways.append({"fuzzy": {field: {**fuzzy, "boost": word_score(match, place)}}})
    return ways


def _constant(kind: str, field: str, value: str, worth: int) -> dict[str, Any]:
    return {"constant_score": {"filter": {kind: {field: value}}, "boost": worth}}


def _sort(kind: Kind, sort: Sort, text: AskedText | None) -> list[dict[str, Any]]:
    keys = SORTS[kind][sort]
    direction = "asc" if keys.ascending else "desc"
    order = [{"_score": "desc"}] if sort is Sort.RELEVANCE and text is not None else []
    fields = dict.fromkeys((keys.first.value, keys.second.value, "id"))
    return [*order, *({field: direction} for field in fields)]


def _plain_filters(filters: Filters) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if filters.levels is not None:
        # A level a value, because there is no bitwise filter without a script.
        bits = [1 << bit for bit in range(31) if filters.levels >> bit & 1]
        found.append({"terms": {"levels": bits}})
    if filters.published_from is not None or filters.published_before is not None:
        bounds = {"gte": filters.published_from, "lt": filters.published_before}
        found.append({"range": {"published_at": {name: at for name, at in bounds.items() if at is not None}}})
    found += [{"range": {rank.value: {"gte": number}}} for rank, number in filters.at_least.items()]
    return found


def _filters(filters: Filters) -> list[dict[str, Any]]:
    return _plain_filters(filters) + [_facet_filter(filters, facet) for facet in Facet if filters.wanted(facet)]


def _facet_filter(filters: Filters, facet: Facet) -> dict[str, Any]:
    return {"terms": {facet.value: list(filters.wanted(facet))}}


def _counted(facet: Facet) -> dict[str, Any]:
    # One shard holds an index, so these counts are exact.
    order = [{"_count": "desc"}, {"_key": "asc"}]
    return {"terms": {"field": facet.value, "size": FACET_VALUES, "order": order}}


def _facet_counts(search: TextSearch, response: Mapping[str, Any]) -> FacetCounts:
    counted = response.get("aggregations", {})
    return {
        facet: tuple(
            FacetCount(bucket["key"], int(bucket["doc_count"])) for bucket in counted[facet.value]["values"]["buckets"]
        )
        for facet in search.facets
    }
