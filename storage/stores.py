"""The one place where clients of stores are built and closed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from storage.blobs.store import BlobStore
from storage.postgres.connection import AsyncDatabase, Database
from storage.redis.progress import ProgressReader, ProgressWriter
from storage.settings import Settings


@dataclass(frozen=True)
class Stores:
    """The stores of a sync process: a flow, the relay, a CLI command."""

    settings: Settings
    database: Database
    blobs: BlobStore
    progress: ProgressWriter

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


@contextmanager
def open_stores(settings: Settings) -> Generator[Stores]:
    """Clients for a sync process, closed at the end."""
    database, progress = Database(settings.postgres), ProgressWriter(settings.redis)
    try:
        yield Stores(settings, database, BlobStore(settings.blobs), progress)
    finally:
        progress.close()
        database.close()


@asynccontextmanager
async def open_async_stores(settings: Settings) -> AsyncGenerator[AsyncStores]:
    """Clients for the API, closed at the end. It starts also while Postgres or Valkey is away."""
    database, progress = AsyncDatabase(settings.postgres), ProgressReader(settings.redis)
    await database.open()
    try:
        yield AsyncStores(settings, database, BlobStore(settings.blobs), progress)
    finally:
        await progress.close()
        await database.close()
