"""How Elasticsearch's indexes are made, filled, swapped and dropped: one index for each build."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import msgspec
from elastic_transport import TransportError
from elasticsearch import ApiError, Elasticsearch

from storage.errors import NotFound, StoreUnavailable
from storage.postgres.connection import Database
from storage.postgres.search import search_builds
from storage.records.search.relevance import WordPlace
from storage.records.search.search import Build, Facet, IndexDocument, Kind, Rank, Removal, Written, vector_numbers
from storage.records.search.tokens import stem
from storage.search.elasticsearch import (
    ENGINE,
    alias,
    index_name,
    passing,
    stems_field,
    unavailable,
    vector_field,
    words_field,
    writing_alias,
)
from storage.settings import SearchSettings

T = TypeVar("T")

BATCH = 500
BULK_SECONDS = 120.0
REFRESH_INTERVAL = "1s"
"""Stated, because an index without one stops refreshing when nobody searches it."""
GC_DELETES = "1h"
"""How long the revision of a removed document is kept: longer than a shard of a rebuild takes."""
FILL_SEGMENTS = 100
"""Segments of a size that an index may have while it is filled; a server's default is ten.

To merge graphs of vectors costs nearly what it costs to make them: a third of the time of a million documents. So an
index is filled almost without merging, and merged while it is read.
"""


def index_settings() -> dict[str, Any]:
    """Settings of a new index. One shard, so that counts are exact.

    It is neither refreshed nor copied, and hardly merged, until it is filled.
    """
    return {
        "number_of_shards": 1,
        "number_of_replicas": 0,
        "refresh_interval": "-1",
        "gc_deletes": GC_DELETES,
        "merge.policy.segments_per_tier": FILL_SEGMENTS,
        "analysis": {"analyzer": {"words": {"type": "custom", "tokenizer": "whitespace"}}},
    }


def index_mapping(build: Build) -> dict[str, Any]:
    """The fields of an index. The documents themselves are not kept: Postgres has them."""
    # Only whether a word is there counts, so neither positions nor lengths are kept.
    words = {"type": "text", "analyzer": "words", "index_options": "docs", "norms": False}
    fields: dict[str, Any] = {
        "id": {"type": "long"},
        "revision": {"type": "long", "index": False},
        # Lucene refuses a term over 32,766 bytes; 8,000 letters have 32,000 at most in UTF-8.
        "name": {"type": "keyword", "doc_values": False, "ignore_above": 8000},
        "hashes": {"type": "keyword", "doc_values": False},
        "levels": {"type": "integer"},
        "published_at": {"type": "long"},
        **{words_field(place): words for place in WordPlace},
        **{stems_field(place): words for place in WordPlace},
        **{facet.value: {"type": "keyword", "ignore_above": 8000} for facet in Facet},
        **{rank.value: {"type": "long", "index": False} for rank in Rank},
    }
    if build.encoder is not None:
        fields[vector_field(build.encoder)] = {
            "type": "dense_vector",
            "dims": build.dimensions,
            "similarity": "dot_product",
            # Stated, because the default keeps one bit of each dimension.
            "index_options": {"type": "hnsw", "m": 16, "ef_construction": 100},
        }
    return {"dynamic": "strict", "_source": {"enabled": False}, "properties": fields}


class ElasticsearchWriter:
    """Search in Elasticsearch for flows."""

    engine = ENGINE

    def __init__(self, settings: SearchSettings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._client = Elasticsearch(
            # No retries of its own: flows wait for the store themselves, and a bulk may be repeated.
            settings.elasticsearch_url.get_secret_value(),
            request_timeout=BULK_SECONDS,
            max_retries=0,
        )

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def create(self, build: Build) -> None:
        """As `SearchWriter.create`."""
        name = index_name(self._settings, build)
        try:
            self._ask(
                lambda: self._client.indices.create(
                    index=name,
                    settings=index_settings(),
                    mappings=index_mapping(build),
                    aliases={writing_alias(self._settings, build): {}},
                )
            )
        except ApiError as error:
            if error.error != "resource_already_exists_exception":
                raise

    def write(self, build: Build, documents: Sequence[IndexDocument], removals: Sequence[Removal] = ()) -> Written:
        """As `SearchWriter.write`."""
        changes = [*documents, *removals]
        stored = superseded = 0
        refused: dict[int, str] = {}
        for start in range(0, len(changes), BATCH):
            lines = [line for change in changes[start : start + BATCH] for line in bulk_lines(build, change)]
            for item in self._bulk(build, lines):
                ((action, result),) = item.items()
                status = int(result["status"])
                # The index has a newer revision.
                if status == 409:
                    superseded += 1
                elif status < 300 or (action == "delete" and result.get("result") == "not_found"):
                    stored += 1
                elif status == 404:
                    raise NotFound(f"Search build {build.id} has no index (any more).")
                elif status == 429 or status >= 500:
                    raise StoreUnavailable(f"Elasticsearch is too busy to write ({result['error']['type']}).")
                else:
                    refused[int(result["_id"])] = f"{result['error']['type']}: {result['error']['reason']}"
        return Written(stored=stored, superseded=superseded, refused=refused)

    def load(self, build: Build, documents: Sequence[IndexDocument]) -> Written:
        """As `SearchWriter.load`: a bulk is the fastest path there is, and nothing is refreshed before `complete`."""
        return self.write(build, documents)

    def _bulk(self, build: Build, lines: list[bytes]) -> list[dict[str, Any]]:
        # The client sends bytes as they are; its annotation only knows dicts.
        name = writing_alias(self._settings, build)
        # An alias is required, because a bulk into an index that was dropped would make it again, without a mapping.
        response = self._ask(lambda: self._client.bulk(index=name, operations=cast(Any, lines), require_alias=True))
        return response["items"]

    def complete(self, build: Build) -> None:
        """As `SearchWriter.complete`: from now on writes are found within a second, and a cluster keeps a copy."""
        settings = {
            "refresh_interval": REFRESH_INTERVAL,
            "auto_expand_replicas": "0-1",
            "merge.policy.segments_per_tier": None,
        }
        self._ask(lambda: self._client.indices.put_settings(index=index_name(self._settings, build), settings=settings))

    def refresh(self, build: Build) -> None:
        """As `SearchWriter.refresh`."""
        self._ask(lambda: self._client.indices.refresh(index=index_name(self._settings, build)))

    def swap(self, build: Build) -> None:
        """As `SearchWriter.swap`: one request moves the alias, then the row says so."""
        name = alias(self._settings, build.kind)
        # In one request, or a search between the two would find no index.
        actions = [
            {"remove": {"index": f"{name}-*", "alias": name, "must_exist": False}},
            {"add": {"index": index_name(self._settings, build), "alias": name}},
        ]
        self._ask(lambda: self._client.indices.update_aliases(actions=actions))
        self._database.run(search_builds.swap(build.id))

    def reading(self, kind: Kind) -> int | None:
        """As `SearchWriter.reading`."""
        name = alias(self._settings, kind)
        try:
            indexes = self._ask(lambda: self._client.indices.get_alias(name=name))
        except ApiError as error:
            if error.meta.status == 404:
                return None
            raise
        return next(int(index.removeprefix(f"{name}-")) for index in indexes)

    def drop(self, build: Build) -> None:
        """As `SearchWriter.drop`."""
        self._ask(lambda: self._client.indices.delete(index=index_name(self._settings, build), ignore_unavailable=True))

    def revisions(self, build: Build, *, after: int, limit: int) -> list[tuple[int, int]]:
        """As `SearchWriter.revisions`."""
        response = self._ask(
            lambda: self._client.search(
                index=index_name(self._settings, build),
                query={"range": {"id": {"gt": after}}},
                sort=[{"id": "asc"}],
                size=limit,
                docvalue_fields=[{"field": "revision"}],
                source=False,
            )
        )
        return [(int(hit["sort"][0]), int(hit["fields"]["revision"][0])) for hit in response["hits"]["hits"]]

    def existing(self) -> list[int]:
        """As `SearchWriter.existing`."""
        names = self._ask(lambda: self._client.indices.get(index=f"{self._settings.index_prefix}-*"))
        # Compared again: the prefix of another installation on the cluster may begin with ours.
        prefixes = tuple(f"{alias(self._settings, kind)}-" for kind in Kind)
        numbers = [name.removeprefix(prefix) for name in names for prefix in prefixes if name.startswith(prefix)]
        return sorted(int(number) for number in numbers if number.isdigit())

    def drop_stray(self, number: int) -> None:
        """As `SearchWriter.drop_stray`."""
        names = [f"{alias(self._settings, kind)}-{int(number)}" for kind in Kind]
        self._ask(lambda: self._client.indices.delete(index=names, ignore_unavailable=True))

    def _ask(self, call: Callable[[], T]) -> T:
        try:
            return call()
        except TransportError as error:
            raise unavailable(error) from error
        except ApiError as error:
            if passing(error):
                raise unavailable(error) from error
            raise


def bulk_lines(build: Build, change: IndexDocument | Removal) -> Iterator[bytes]:
    """A change as lines of a bulk request. Its revision is the version: an index never goes back to an older one."""
    action = "index" if isinstance(change, IndexDocument) else "delete"
    yield msgspec.json.encode(
        {action: {"_id": str(change.id), "version": change.revision, "version_type": "external_gte"}}
    )
    if isinstance(change, IndexDocument):
        yield msgspec.json.encode(_fields(build, change))


def _fields(build: Build, document: IndexDocument) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "id": document.id,
        "revision": document.revision,
        "name": document.name,
        "hashes": document.hashes,
        "levels": [1 << bit for bit in range(31) if document.levels >> bit & 1],
        "published_at": document.published_at,
    }
    for place, words in document.words.items():
        fields[words_field(place)] = " ".join(words)
        fields[stems_field(place)] = " ".join(dict.fromkeys(stem(word) for word in words))
    fields.update((facet.value, values) for facet, values in document.values.items())
    fields.update((rank.value, number) for rank, number in document.ranks.items())
    if document.vector and build.encoder is not None:
        fields[vector_field(build.encoder)] = vector_numbers(document.vector)
    return fields
