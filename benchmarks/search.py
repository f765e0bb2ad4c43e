"""Search on both engines: a rebuild beside the engine's own bulk path, queries, and what semantic search finds.

    python -m benchmarks.search              20,000 models or MODELS=n,m; SIZE=full for 100,000 and 1,000,000
    ENGINES=embedded python -m benchmarks.search

A rebuild is timed from the first row read to the swap. Its peer writes the same documents, ready in memory, by the
engine's own path: COPY and the making of the indexes, or `streaming_bulk` and a refresh. Vectors are seeded and
clustered and lie in Postgres; the encoder's own speed is a figure of its own. Elasticsearch is the one that
ELASTICSEARCH_URL names, or the one of the tests.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from elasticsearch import Elasticsearch
from elasticsearch.helpers import streaming_bulk
from pydantic import SecretStr

from benchmarks.search_catalogue import WORDS, fill_catalogue
from benchmarks.search_queries import RECALL_QUERIES, Recall, time_queries
from deployments.local.servers.postgres import EmbeddedPostgres
from flows.indexing.documents import read_rows
from flows.indexing.new_builds import SEGMENT
from flows.indexing.rebuild import rebuild
from storage.postgres.migrating import migrate
from storage.postgres.search import search_queue, search_sources, search_vectors
from storage.records.search.search import Build, BuildState, IndexDocument, Kind
from storage.records.search.tokens import stem
from storage.search.documents import models
from storage.search.elasticsearch_writer import bulk_lines, index_mapping, index_settings
from storage.search.embedded_writer import row_of
from storage.search.encoder import Encoder
from storage.search.lexemes import kept_deletes
from storage.settings import PostgresSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests import search_server

FULL = os.environ.get("SIZE") == "full"
SIZES = [int(size) for size in os.environ.get("MODELS", "100000,1000000" if FULL else "20000").split(",")]
ENGINES = os.environ.get("ENGINES", "embedded,elasticsearch").split(",")
GOAL, LINEAR_GOAL = 0.8, 0.9
PAGE = 2_000
WARM = 5_000


def seeded_vectors(count: int, dimensions: int, seed: int) -> np.ndarray:
    """(count, dimensions) rows of length 1 around 500 centres, which are the same for every seed."""
    centres = np.random.default_rng(7).normal(size=(500, dimensions)).astype("<f4")
    numbers = np.random.default_rng(seed)
    rows = centres[numbers.integers(500, size=count)] + numbers.normal(size=(count, dimensions)).astype("<f4") * 0.7
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def remember_vectors(stores: Stores, count: int) -> None:
    """A vector in Postgres for the text of each model, as the sync flow would have left them."""
    for start in range(1, count + 1, PAGE):
        rows, _ = stores.database.run(search_sources.models(range(start, min(start + PAGE, count + 1))))
        hashes = [hashlib.sha256(models.encoded_text(row).encode()).digest() for row in rows]
        vectors = seeded_vectors(len(rows), stores.encoder.dimensions, seed=start)
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
        connection.execute("set statement_timeout = 0")
        for table, lines in ((f"search_build_{build.id}", rows), (f"search_build_{build.id}_words", words)):
            statement = f"copy {table} ({', '.join(lines[0])}) from stdin".encode()
            with connection.cursor().copy(statement) as copy:
                for line in lines:
                    copy.write_row(list(line.values()))
    stores.search.complete(build)
    return time.perf_counter() - began


def peer_elasticsearch(settings: SearchSettings, documents: list[IndexDocument], build: Build) -> float:
    """Seconds of streaming_bulk and a refresh, by a server that has done some of it before: ours comes to a warm one.

    Takes the documents out of the list: both do not fit into memory.
    """
    client = Elasticsearch(settings.elasticsearch_url.get_secret_value(), request_timeout=300)
    ready: list[tuple[str, bytes]] = []
    while documents:
        document = documents.pop()
        ready.append((str(document.id), list(bulk_lines(build, document))[1]))
    seconds = 0.0
    for index, pairs in (("bench-warm", ready[:WARM]), ("bench-peer", ready)):
        client.indices.create(index=index, settings=index_settings(), mappings=index_mapping(build))
        began = time.perf_counter()
        actions = ({"_op_type": "index", "_index": index, "_id": identity, "_source": body} for identity, body in pairs)
        for _ in streaming_bulk(client, actions, chunk_size=500, max_retries=60, initial_backoff=0.5, max_backoff=5):
            pass
        client.indices.refresh(index=index)
        seconds = time.perf_counter() - began
        client.indices.delete(index=index)
    client.close()
    return seconds


def measure(settings: Settings, engine: str, count: int) -> float:
    """One engine at one size; returns the documents that a rebuild took in a second."""
    with open_stores(settings) as stores:
        documents = ready_documents(stores, count)
        recall = Recall(documents, seeded_vectors(RECALL_QUERIES, stores.encoder.dimensions, seed=0))
        peer = Build(
            id=10_000_000,
            kind=Kind.MODEL,
            engine=engine,
            encoder=stores.encoder.name,
            dimensions=stores.encoder.dimensions,
            state=BuildState.PREPARING,
            created_at=stores.database.run(search_queue.now()),
            retired_at=None,
            vector_segments=max(1, count // SEGMENT),
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
        encoder = stores.encoder.name
    print(
        f"{engine}, {count:,} models: rebuild {ours:.1f} s ({count / ours:,.0f}/s), own bulk path {theirs:.1f} s "
        f"({count / theirs:,.0f}/s); load of the last minute {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    )
    name = f"search-{engine}-{count}"
    print(f"figure {name}-rebuild-per-second {count / ours:.0f} {count / theirs:.0f} {theirs / ours:.2f} goal >={GOAL}")
    time_queries(settings, name, encoder, recall)
    return count / ours


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
    rates: dict[str, list[float]] = {engine: [] for engine in ENGINES}
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
                    rates[engine].append(measure(plain.model_copy(update={"search": search}), engine, count))
    for engine, measured in rates.items():
        for smaller, larger in pairwise(measured):
            share = larger / smaller
            print(f"figure search-{engine}-linear {larger:.0f} {smaller:.0f} {share:.2f} goal >={LINEAR_GOAL}")


if __name__ == "__main__":
    main()
