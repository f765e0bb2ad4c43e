"""Uploads of model files in parts: each request's bytes go on where those before ended, whatever died in between.

The order holds it together: bytes on the disk, then the row that says how many; the file checked and stored, then the
row that says what it became, which alone makes the last bytes received.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from litestar import Request

from platform_api.access.guards import Caller
from platform_api.catalog.uploads import tus
from platform_api.catalog.uploads.incoming_files import Hashers, go_on, in_thread, keep_whole, take_in
from platform_api.http.problems import BodyTooLarge, MalformedBody, TooSlow
from platform_api.http.request_body import Body
from platform_api.http.shutdown import Stopping
from storage.blobs.hashing import ModelHasher
from storage.blobs.parts import PartialUpload, PartialUploads
from storage.errors import (
    FileExists,
    FreeSpaceLow,
    Gone,
    NotAllowed,
    NotFound,
    PoolBusy,
    ShuttingDown,
    StoreFailure,
    UploadBusy,
    UploadRefused,
)
from storage.free_space import FreeSpace
from storage.postgres.accounts import accounts
from storage.postgres.catalog import uploads
from storage.postgres.connection import Script
from storage.records.catalog.catalog import NewFile
from storage.records.catalog.uploads import ModelUpload, WantedFile
from storage.records.policy.viewers import Viewer, viewer_of
from storage.stores import AsyncStores
from storage.thread_pools import ThreadPool

LOG = logging.getLogger("darkroom.api")
SWEEP_SECONDS = 900.0


@dataclass(frozen=True)
class UploadsInProgress:
    """What one API process knows of uploads under way."""

    stores: AsyncStores
    parts: PartialUploads
    stopping: Stopping
    hashers: Hashers = field(default_factory=Hashers)

    @property
    def hours(self) -> float:
        """How long an upload may rest."""
        return self.stores.settings.uploads.unfinished_hours

    @property
    def threads(self) -> ThreadPool:
        """What writes the bytes down."""
        return self.stores.pools.blob_writes

    async def give_up(self, upload_id: UUID) -> None:
        """Forget an upload: its row, then its bytes. The caller holds its part."""
        await self.stores.database.run(uploads.delete(upload_id))
        await asyncio.to_thread(self.parts.remove, upload_id)


async def begin(
    in_progress: UploadsInProgress, wanted: WantedFile, length: int, metadata: str, viewer: Viewer
) -> ModelUpload:
    """A new upload of `length` bytes. Raises what model_uploads.create does, FreeSpaceLow, DiskFull."""
    run, limits = in_progress.stores.database.run, in_progress.stores.settings.quotas.limits
    await in_progress.stores.free_space.check()
    upload = await run(lambda: uploads.create(wanted, length, metadata, viewer, in_progress.hours, limits))
    async with unless_it_fails(in_progress, upload.id):
        await in_progress.threads.run(in_progress.parts.create, upload.id)
    return upload


@asynccontextmanager
async def unless_it_fails(in_progress: UploadsInProgress, upload_id: UUID) -> AsyncGenerator[None]:
    """Give the upload up when this fails: its sender does not know its address yet, so nobody could go on."""
    try:
        yield
    except BaseException:
        await asyncio.shield(_remove(in_progress, upload_id))
        raise


async def append(
    in_progress: UploadsInProgress,
    request: Request[Any, Any, Any],
    upload_id: UUID,
    caller: Caller,
    offset: int,
    checksum: tus.Checksum | None,
) -> ModelUpload:
    """Take a request's bytes behind the first `offset`; the upload as it is then, finished when they were the last.

    Raises WrongOffset, UploadBusy while another request sends, ChecksumMismatch (none of the bytes is kept),
    BodyTooLarge, TooSlow and MalformedBody (what arrived is kept, unless it should have been checked), Gone when the
    disk lost bytes, and for a whole file what `keep_whole` raises: then nothing of the upload is left. Unauthenticated
    and AccountBanned once the key does not work any more.
    """
    run, viewer = in_progress.stores.database.run, viewer_of(caller.account)
    upload = await run(uploads.get(upload_id, viewer))
    # A repeat of the last bytes, whose response was lost: it gets the same response.
    if upload.file_id is not None:
        _awaited(request, upload, offset)
        return upload
    with in_progress.parts.hold(upload_id) as part:
        upload = await run(uploads.get(upload_id, viewer))  # what it is now that nobody else adds to it
        await in_progress.stores.free_space.check()
        body = _awaited(request, upload, offset, in_progress.stores.free_space)
        hasher = in_progress.hashers.take(upload_id, upload.received)
        try:
            await go_on(part, hasher, in_progress.threads, upload.received)
        except EOFError as error:
            await in_progress.give_up(upload_id)
            raise Gone(f"Upload {upload_id} lost bytes on our disk and was given up. Begin a new one.") from error
        with in_progress.stopping.ending(body.stop):
            return await _Appending(in_progress, upload, part, hasher, caller).run(body, checksum)


def _awaited(
    request: Request[Any, Any, Any], upload: ModelUpload, offset: int, free_space: FreeSpace | None = None
) -> Body:
    """The body of a request that goes on where the upload is. Raises WrongOffset, BodyTooLarge."""

    async def arrived(_: int) -> None:
        if free_space is not None:
            await free_space.check()

    if offset != upload.received:
        raise tus.WrongOffset(upload)
    left = upload.length - upload.received
    body = Body(request, left, f"The upload lacks {left:,} bytes only. Send no more than these.", arrived)
    body.check_declared_length()
    return body


class _Appending:
    """One request's bytes on their way into a part that is held and open."""

    def __init__(
        self,
        in_progress: UploadsInProgress,
        upload: ModelUpload,
        part: PartialUpload,
        hasher: ModelHasher,
        caller: Caller,
    ) -> None:
        self._in_progress, self._upload, self._part, self._hasher = in_progress, upload, part, hasher
        self._viewer, self._key_id = viewer_of(caller.account), caller.key.id

    async def run(self, body: Body, checksum: tus.Checksum | None) -> ModelUpload:
        """Take the body; mark it received, or finish."""
        # For bytes that turn out to be changed: hashes take bytes and never give them back.
        before = self._hasher.copy()
        # Bytes that are to be checked are received together or not at all, so none is marked on the way.
        mark = self._mark if checksum is None else None
        try:
            await take_in(
                body,
                self._part,
                self._hasher,
                self._in_progress.threads,
                name=self._upload.name,
                length=self._upload.length,
                mark=mark,
                digest=checksum,
            )
            if checksum is not None:
                checksum.check()
            if self._is_whole:
                return await self._finish()
            await self._mark()
        except (MalformedBody, TooSlow, PoolBusy, FreeSpaceLow, ShuttingDown):  # the sender is gone, or goes on later
            if checksum is None:
                await self._mark()
                self._in_progress.hashers.put(self._upload.id, self._hasher)
            raise
        except (tus.ChecksumMismatch, BodyTooLarge):
            self._in_progress.hashers.put(self._upload.id, before)
            raise
        except (UploadRefused, FileExists, Gone, NotAllowed, NotFound):
            await self._in_progress.give_up(self._upload.id)
            await body.drain()
            raise
        self._in_progress.hashers.put(self._upload.id, self._hasher)
        return self._upload

    @property
    def _is_whole(self) -> bool:
        taken, length = self._hasher.length, self._upload.length
        return taken == length

    async def _mark(self) -> None:
        """What was taken so far is on the disk, and the row says so. A whole file is received when it is finished."""
        if self._is_whole:
            return
        # The disk before the row: a row must never count bytes that a power cut can take back.
        await in_thread(self._in_progress.threads, self._part.sync)
        received = uploads.receive(self._upload, self._hasher.length, self._in_progress.hours)
        self._upload = await self._in_progress.stores.database.run(received)

    async def _finish(self) -> ModelUpload:
        stores = self._in_progress.stores
        file = await keep_whole(stores, self._part, self._hasher, self._upload.wanted, self._viewer)
        finished = await stores.database.run(lambda: self._finished(file))
        # Last: a death before it leaves bytes that the sweep removes, a death after a removal that came first would
        # leave no file.
        await asyncio.to_thread(self._in_progress.parts.remove, self._upload.id)
        return finished

    def _finished(self, file: NewFile) -> Script[ModelUpload]:
        # In the transaction that makes the file a row: whoever sends a few bytes now and then keeps a request open for
        # days.
        yield from accounts.check_works(self._key_id)
        return (yield from uploads.finish(self._upload, file))


async def remove(in_progress: UploadsInProgress, upload_id: UUID, viewer: Viewer) -> None:
    """Give an upload up, as its sender asks. A file that it became stays.

    Raises NotFound, Gone, and UploadBusy while a request sends bytes of it.
    """
    await in_progress.stores.database.run(uploads.get(upload_id, viewer))
    await _remove(in_progress, upload_id)


async def _remove(in_progress: UploadsInProgress, upload_id: UUID) -> None:
    try:
        with in_progress.parts.hold(upload_id):
            await in_progress.give_up(upload_id)
    except NotFound:  # finished, or on another machine's disk, whose own sweep removes it
        await in_progress.stores.database.run(uploads.delete(upload_id))


async def sweep(in_progress: UploadsInProgress) -> int:
    """Give up the uploads that rested too long, and remove bytes on this machine that no row names; returns how
    many."""
    run, removed = in_progress.stores.database.run, 0
    old = await asyncio.to_thread(lambda: list(in_progress.parts.older_than(in_progress.hours * 3600)))
    known = set(await run(uploads.known(old)))
    for upload_id in [*await run(uploads.expired()), *(one for one in old if one not in known)]:
        try:
            await _remove(in_progress, upload_id)
        except UploadBusy:
            continue
        removed += 1
    return removed


async def keep_sweeping(in_progress: UploadsInProgress) -> None:
    """Sweep now and then until cancelled, also when a store is unavailable for a while."""
    while True:
        try:
            removed = await sweep(in_progress)
        except (StoreFailure, OSError) as error:
            LOG.warning("uploads are not swept: %s", error)
        else:
            LOG.info("%d uploads that rested too long were given up", removed) if removed else None
        await asyncio.sleep(SWEEP_SECONDS)
