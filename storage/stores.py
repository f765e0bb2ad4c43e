"""The one place where clients of stores are built and closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import cast

from storage.blobs.store import BlobStore
from storage.errors import StoreUnavailable
from storage.free_space import FreeSpace
from storage.postgres.connection import AsyncDatabase, Database
from storage.postgres.events.watch import CatalogueWatch
from storage.postgres.upkeep import orphans
from storage.redis.cache import ModelCache
from storage.redis.failed_keys import FailedKeys
from storage.redis.progress import ProgressReader, ProgressWriter
from storage.redis.rate_limits import RateLimits
from storage.search.embedded import EmbeddedReader
from storage.search.embedded_writer import EmbeddedWriter
from storage.search.encoder import Encoder
from storage.search.gateway import Search, SearchReader, SearchWriter
from storage.settings import Settings
from storage.thread_pools import ThreadPools

RENEW_SECONDS = 60.0
"""A put of bytes that are there already waits so long at most for Postgres."""


@dataclass(frozen=True)
class Stores:
    """The stores of a sync process: a flow, the relay, a CLI command."""

    settings: Settings
    database: Database
    blobs: BlobStore
    progress: ProgressWriter
    search: SearchWriter
    encoder: Encoder

    @property
    def cache_folder(self) -> Path:
        """Where this machine keeps copies it can make again: base model folders, latents."""
        return self.settings.data_folder / "cache"


@dataclass(frozen=True)
class AsyncStores:
    """The stores of the API."""

    settings: Settings
    database: AsyncDatabase
    blobs: BlobStore
    progress: ProgressReader
    rate_limits: RateLimits
    failed_keys: FailedKeys
    models: ModelCache
    watch: CatalogueWatch
    search: Search
    pools: ThreadPools
    free_space: FreeSpace


@contextmanager
def open_stores(settings: Settings, piece_done: Callable[[], object] = bool) -> Generator[Stores]:
    """Clients for a sync process, closed at the end. `piece_done`: called after each piece of a file that the blob
    store copies or hashes."""
    database, progress = Database(settings.postgres), ProgressWriter(settings.redis)
    search = _search_writer(settings, database)
    try:
        # A put in a flow waits in its own thread; the API's needs the detour of `_renew_from_a_thread`.
        blobs = BlobStore(
            settings.blobs, renew=lambda sha256: database.run(orphans.renew(sha256)), piece_done=piece_done
        )
        yield Stores(settings, database, blobs, progress, search, Encoder(settings.search))
    finally:
        search.close()
        progress.close()
        database.close()


@asynccontextmanager
async def open_async_stores(settings: Settings) -> AsyncGenerator[AsyncStores]:
    """Clients for the API, closed at the end. It starts also while Postgres or Valkey is unavailable."""
    database, progress = AsyncDatabase(settings.postgres), ProgressReader(settings.redis)
    rate_limits, models = RateLimits(settings.redis), ModelCache(settings.redis, settings.cache)
    failed_keys = FailedKeys(settings.redis)
    watch = CatalogueWatch(database)
    reader = _search_reader(settings, database)
    pools = ThreadPools(settings.api.blob_threads)
    await database.open()
    try:
        search = Search(reader, Encoder(settings.search), pools.encoder)
        blobs = BlobStore(settings.blobs, renew=_renew_from_a_thread(database))
        limiting, space = (rate_limits, failed_keys), FreeSpace(settings)
        yield AsyncStores(settings, database, blobs, progress, *limiting, models, watch, search, pools, space)
    finally:
        # The database last: the search reader and the watch use it.
        pools.close()
        await reader.close()
        await watch.close()
        await failed_keys.close()
        await models.close()
        await rate_limits.close()
        await progress.close()
        await database.close()


def _renew_from_a_thread(database: AsyncDatabase) -> Callable[[str], object]:
    """How a put in a thread says that bytes are wanted again: on the loop of the API, which holds its connections."""
    loop = asyncio.get_running_loop()

    def renew(sha256: str) -> int:
        if threading.get_ident() == home:
            raise RuntimeError("Blobs are put in a thread (asyncio.to_thread): the loop would wait for itself.")
        called = asyncio.run_coroutine_threadsafe(database.run(orphans.renew(sha256)), loop)
        try:
            return called.result(RENEW_SECONDS)
        except TimeoutError as error:
            # Otherwise the statement goes on, holding a connection, with nobody left who waits for it.
            called.cancel()
            raise StoreUnavailable(
                f"Postgres does not respond within {RENEW_SECONDS:.0f} s. Try again later."
            ) from error

    home = threading.get_ident()
    return renew


# Elasticsearch's client takes half a second to import, and numpy with it: only those who have a cluster pay for it.


def _search_writer(settings: Settings, database: Database) -> SearchWriter:
    if settings.search.elasticsearch_url.get_secret_value():
        engine = import_module("storage.search.elasticsearch_writer")
        return cast(SearchWriter, engine.ElasticsearchWriter(settings.search, database))
    return EmbeddedWriter(database, settings.search.index_memory_mib)


def _search_reader(settings: Settings, database: AsyncDatabase) -> SearchReader:
    if settings.search.elasticsearch_url.get_secret_value():
        engine = import_module("storage.search.elasticsearch")
        return cast(SearchReader, engine.ElasticsearchReader(settings.search))
    return EmbeddedReader(database)
