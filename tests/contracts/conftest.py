"""Both search engines, each with a database of its own: what holds for one must hold for the other."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.postgres.connection import AsyncDatabase, Database
from storage.postgres.search import search_builds
from storage.records.search.search import Build, IndexDocument, Kind, SearchHits, SearchQuery
from storage.search.elasticsearch import ElasticsearchReader
from storage.search.elasticsearch_writer import ElasticsearchWriter
from storage.search.embedded import EmbeddedReader
from storage.search.embedded_writer import EmbeddedWriter
from storage.search.encoder import Encoder
from storage.search.gateway import Search, SearchReader, SearchWriter
from storage.settings import PostgresSettings, SearchSettings
from storage.thread_pools import ThreadPool
from tests.conftest import fresh_database

T = TypeVar("T")


@dataclass
class Bench:
    """One engine, open for reading and writing."""

    runner: asyncio.Runner
    database: Database
    reader: SearchReader
    writer: SearchWriter
    encoder: Encoder
    threads: ThreadPool = field(default_factory=lambda: ThreadPool("encoder", 1, wait_seconds=5.0))

    def run(self, asked: Coroutine[Any, Any, T]) -> T:
        """The result of an async call."""
        return self.runner.run(asked)

    def find(self, query: SearchQuery, kind: Kind = Kind.MODEL) -> SearchHits:
        """A search as the API asks it."""
        return self.run(Search(self.reader, self.encoder, self.threads).find(kind, query))

    def ids(self, text: str = "", kind: Kind = Kind.MODEL, **fields: Any) -> list[int]:
        """The ids that a search returns."""
        return [hit.id for hit in self.find(SearchQuery(text=text, limit=1000, **fields), kind).hits]

    def new_build(
        self,
        kind: Kind = Kind.MODEL,
        *,
        encoder: str | None = None,
        dimensions: int | None = None,
        vector_segments: int = 1,
    ) -> Build:
        """An empty build that nobody reads yet."""
        build = self.database.run(search_builds.insert(kind, self.writer.engine, encoder, dimensions, vector_segments))
        self.writer.create(build)
        return self.database.run(search_builds.open_for_writes(build.id))

    def publish(self, build: Build) -> None:
        """Readers see this build from now on."""
        self.writer.complete(build)
        self.writer.refresh(build)
        self.writer.swap(build)

    def filled(self, documents: Sequence[IndexDocument], kind: Kind = Kind.MODEL, **vectors: Any) -> Build:
        """A live build of these documents, of which every other one comes as in a drain and the rest as in a fill."""
        build = self.new_build(kind, **vectors)
        parts = self.writer.write(build, documents[::2]), self.writer.load(build, documents[1::2])
        assert (sum(part.stored for part in parts), [part.refused for part in parts]) == (len(documents), [{}, {}])
        self.publish(build)
        return build


@contextlib.contextmanager
def embedded(url: str) -> Iterator[Bench]:
    """Search in Postgres."""
    settings = PostgresSettings(url=SecretStr(url))
    reading = AsyncDatabase(settings)
    with asyncio.Runner() as runner, Database(settings) as database:
        runner.run(reading.open())
        encoder = Encoder(SearchSettings())
        yield Bench(runner, database, EmbeddedReader(reading), EmbeddedWriter(database, 256), encoder)
        runner.run(reading.close())


@contextlib.contextmanager
def elastic(url: str, elasticsearch_url: str) -> Iterator[Bench]:
    """Search in Elasticsearch, under names that no other test has."""
    settings = SearchSettings(
        elasticsearch_url=SecretStr(elasticsearch_url), index_prefix=f"test-{uuid.uuid4().hex[:12]}", timeout_seconds=60
    )
    with asyncio.Runner() as runner, Database(PostgresSettings(url=SecretStr(url))) as database:
        reader, writer = ElasticsearchReader(settings), ElasticsearchWriter(settings, database)
        yield Bench(runner, database, reader, writer, Encoder(settings))
        for kind in Kind:
            for build in database.run(search_builds.written(kind, writer.engine)):
                writer.drop(build)
        runner.run(reader.close())
        writer.close()


@pytest.fixture(scope="module", params=["embedded", "elasticsearch"])
def bench(request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[Bench]:
    """An engine that this module has for itself."""
    with fresh_database(postgres_server, migrated_template) as url:
        if request.param == "embedded":
            opened = embedded(url)
        else:
            opened = elastic(url, request.getfixturevalue("elasticsearch_url"))
        with opened as engine:
            yield engine
