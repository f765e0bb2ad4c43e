"""Search on both engines: a rebuild beside the engine's own bulk path, and queries.

    python -m benchmarks.search              20,000 models or MODELS=n; SIZE=full for 100,000 and 1,000,000
    ENGINES=embedded python -m benchmarks.search

A rebuild is timed from the first row read to the swap. Its peer writes the same documents, ready in memory, by the
engine's own path: COPY and the making of the indexes, or `streaming_bulk` and a refresh. Vectors are seeded and
clustered and lie in Postgres; the encoder's own speed is a figure of its own. Elasticsearch is the one that
ELASTICSEARCH_URL names, or the one of the tests.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk
from pydantic import SecretStr

from benchmarks.search_catalogue import WORDS, fill_catalogue
from deployments.local.postgres import EmbeddedPostgres
from flows.indexing.documents import SOURCES, read_rows
from flows.indexing.rebuild import rebuild
from storage.postgres import search_queue, search_vectors
from storage.postgres.connection import AsyncDatabase, migrate
from storage.records.search import Build, BuildState, Facet, Filters, IndexDocument, Kind, Mode, SearchQuery
from storage.records.words import stem
from storage.search.elasticsearch import ElasticsearchReader
from storage.search.elasticsearch_writing import bulk_lines, index_mapping, index_settings
from storage.search.embedded import EmbeddedReader
from storage.search.embedded_writing import row_of
from storage.search.encoder import Encoder
from storage.search.gateway import Search
from storage.search.lexemes import kept_deletes
from storage.settings import PostgresSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests import search_server

SIZES = (100_000, 1_000_000) if os.environ.get("SIZE") == "full" else (int(os.environ.get("MODELS", "20000")),)
ENGINES = os.environ.get("ENGINES", "embedded,elasticsearch").split(",")
QUERIES = 200
GOAL = 0.8
PAGE = 2_000


def seeded_vectors(count: int, dimensions: int) -> np.ndarray:
    """(count, dimensions) rows of length 1 around 500 centres."""
    numbers = np.random.default_rng(7)
    centres = numbers.normal(size=(500, dimensions)).astype("<f4")
    rows = centres[numbers.integers(500, size=count)] + numbers.normal(size=(count, dimensions)).astype("<f4") * 0.7
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def remember_vectors(stores: Stores, count: int) -> None:
    """A vector in Postgres for the text of each model, as the sync flow would have left them."""
    source = SOURCES[Kind.MODEL]
    for start in range(1, count + 1, PAGE):
        rows, _ = stores.database.run(source.read(range(start, min(start + PAGE, count + 1))))
        hashes = [hashlib.sha256(source.text(row).encode()).digest() for row in rows]
        vectors = seeded_vectors(len(rows), stores.encoder.dimensions)
        known = {digest: row.tobytes() for digest, row in zip(hashes, vectors, strict=True)}
        stores.database.run(search_vectors.add(stores.encoder.name, known))


def ready_documents(stores: Stores, count: int) -> list[IndexDocument]:
    """Every document, in memory."""
    pages = (range(start, min(start + PAGE, count + 1)) for start in range(1, count + 1, PAGE))
    return [document for ids in pages for document in read_rows(stores, Kind.MODEL, ids).documents]


def peer_embedded(stores: Stores, documents: list[IndexDocument], build: Build) -> float:
    """Seconds of COPY and the making of the indexes."""
    rows = [row_of(document) for document in documents]
    distinct = {word for document in documents for words in document.words.values() for word in words}
    words = [{"word": word, "stem": stem(word), "deletes": kept_deletes(word)} for word in sorted(distinct)]
    stores.search.create(build)
    began = time.perf_counter()
    with stores.database.connect() as connection:
        for table, lines in ((f"search_build_{build.id}", rows), (f"search_build_{build.id}_words", words)):
            statement = f"copy {table} ({', '.join(lines[0])}) from stdin".encode()
            with connection.cursor().copy(statement) as copy:
                for line in lines:
                    copy.write_row(list(line.values()))
    stores.search.complete(build)
    return time.perf_counter() - began


def peer_elasticsearch(settings: SearchSettings, documents: list[IndexDocument], build: Build) -> float:
    """Seconds of streaming_bulk and a refresh."""
    client = Elasticsearch(settings.elasticsearch_url.get_secret_value(), request_timeout=300)
    client.indices.create(index="bench-peer", settings=index_settings(), mappings=index_mapping(build))
    ready = [(str(document.id), list(bulk_lines(build, document))[1]) for document in documents]
    began = time.perf_counter()
    actions = (
        {"_op_type": "index", "_index": "bench-peer", "_id": identity, "_source": body} for identity, body in ready
    )
    for _ in streaming_bulk(client, actions, chunk_size=500):
        pass
    client.indices.refresh(index="bench-peer")
    seconds = time.perf_counter() - began
    client.indices.delete(index="bench-peer")
    client.close()
    return seconds


def queries() -> dict[str, list[SearchQuery]]:
    """Queries of each kind, by its name."""
    chance = np.random.default_rng(3)

    def words(count: int) -> list[str]:
        return [" ".join(chance.choice(WORDS, count, replace=False)) for _ in range(QUERIES)]

    lora = Filters(values={Facet.TYPE: ("LORA",)})
    return {
        "two words": [SearchQuery(text=text) for text in words(2)],
        "filter and facets": [SearchQuery(text=text, filters=lora, facets=tuple(Facet)) for text in words(1)],
        "prefix": [SearchQuery(text=text[:4]) for text in words(1)],
        "typing error": [SearchQuery(text=text[0] + text[2] + text[1] + text[3:]) for text in words(1)],
        "semantic": [SearchQuery(text=text, mode=Mode.SEMANTIC) for text in words(3)],
        "fused": [SearchQuery(text=text, mode=Mode.FUSED) for text in words(2)],
    }


async def time_kind(search: Search, name: str, asked: list[SearchQuery]) -> None:
    """Print the median and the 99th percentile of some queries, one after the other."""
    await search.find(Kind.MODEL, asked[0])
    seconds: list[float] = []
    for query in asked:
        began = time.perf_counter()
        await search.find(Kind.MODEL, query)
        seconds.append(time.perf_counter() - began)
    worst = quantiles(seconds, n=100)[98]
    print(f"  {name:<20} p50 {median(seconds) * 1000:8.1f} ms   p99 {worst * 1000:8.1f} ms", flush=True)


def time_queries(settings: Settings) -> None:
    """Print the figures of each kind of query."""

    async def ask() -> None:
        database = AsyncDatabase(settings.postgres)
        await database.open()
        elastic = bool(settings.search.elasticsearch_url.get_secret_value())
        reader = ElasticsearchReader(settings.search) if elastic else EmbeddedReader(database)
        try:
            search = Search(reader, Encoder(settings.search))
            for name, asked in queries().items():
                await time_kind(search, name, asked)
        finally:
            await reader.close()
            await database.close()

    asyncio.run(ask())


def measure(settings: Settings, engine: str, count: int) -> None:
    """One engine at one size."""
    with open_stores(settings) as stores:
        documents = ready_documents(stores, count)
        peer = Build(
            id=10_000_000,
            kind=Kind.MODEL,
            engine=engine,
            encoder=stores.encoder.name,
            dimensions=stores.encoder.dimensions,
            state=BuildState.PREPARING,
            created_at=stores.database.run(search_queue.now()),
            retired_at=None,
        )
        if engine == "embedded":
            theirs = peer_embedded(stores, documents, peer)
            stores.search.drop(peer)
        else:
            theirs = peer_elasticsearch(settings.search, documents, peer)
        del documents
        began = time.perf_counter()
        rebuild(stores, Kind.MODEL)
        ours = time.perf_counter() - began
    share = theirs / ours
    print(
        f"{engine}, {count:,} models: rebuild {ours:.1f} s ({count / ours:,.0f}/s), own bulk path {theirs:.1f} s "
        f"({count / theirs:,.0f}/s): {share:.2f} of it, goal {GOAL}",
        flush=True,
    )
    time_queries(settings)


def encoder_speed() -> None:
    """Print how many documents the encoder takes in a second."""
    encoder = Encoder(SearchSettings())
    chance = np.random.default_rng(1)
    texts = [" ".join(chance.choice(WORDS, 30)) for _ in range(200)]
    encoder.encode(texts[:8])
    began = time.perf_counter()
    encoder.encode(texts)
    print(f"encoder: {len(texts) / (time.perf_counter() - began):.0f} documents/s of 30 words", flush=True)


@contextlib.contextmanager
def elasticsearch_of(engine: str, folder: Path) -> Iterator[str]:
    """The URL of the engine's server; empty for the one that needs none."""
    if engine == "embedded":
        yield ""
        return
    os.environ.setdefault("ES_HEAP", "2g")
    with search_server.serving(folder / "elasticsearch") as url:
        yield url


def main() -> None:
    """Print the table."""
    encoder_speed()
    for count in SIZES:
        with (
            tempfile.TemporaryDirectory(prefix="dr-") as name,
            EmbeddedPostgres(Path(name) / "postgres", durable=False).serving() as server,
        ):
            server.create_databases(["bench"])
            url = server.url("bench")
            migrate(url)
            fill_catalogue(url, count)
            plain = Settings(data_folder=Path(name), postgres=PostgresSettings(url=SecretStr(url)))
            with open_stores(plain) as stores:
                remember_vectors(stores, count)
            for engine in ENGINES:
                with elasticsearch_of(engine, Path(name)) as address:
                    search = SearchSettings(elasticsearch_url=SecretStr(address), index_prefix="bench")
                    measure(plain.model_copy(update={"search": search}), engine, count)


if __name__ == "__main__":
    main()
