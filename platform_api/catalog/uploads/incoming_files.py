"""Bytes of model files on their way in: hashed and looked at while they arrive, checked, stored, then a row.

A plain PUT and the parts of a tus upload meet here. Of a refused file nothing stays: no row, blob or temporary file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

from cachetools import LRUCache

from platform_api.http.request_body import Body
from storage.blobs.families import check_model_file
from storage.blobs.hashing import ModelHasher, hash_on
from storage.blobs.other_formats import START_BYTES, refuse_other_name
from storage.blobs.parts import PartialUpload
from storage.blobs.store import BlobStore
from storage.blobs.weights import check_start
from storage.errors import InvalidRequest, UploadRefused
from storage.postgres.catalog import uploads
from storage.records.catalog.catalog import FileRole, Model, ModelVersion, NewFile
from storage.records.catalog.uploads import MAX_NAME, UPLOADED_TYPES, WantedFile
from storage.records.catalog.vocabulary import BASE_MODELS, FileType
from storage.records.policy.viewers import Viewer
from storage.request_faults import has_control_characters
from storage.stores import AsyncStores
from storage.thread_pools import ThreadPool

P = ParamSpec("P")
T = TypeVar("T")

PIECE = 1024 * 1024
"""Bytes that go to the disk and the hashes at once, in a thread of their own."""
MAX_BYTES = 2**63
"""A size for files whose sender has not announced theirs."""
MARK = 64 * 1024 * 1024
"""Bytes after which those received are made durable: a process that dies costs its sender no more than these."""

_HEX = frozenset("0123456789abcdef")
_SHA256_DIGITS = 64


class Digest(Protocol):
    """Something that takes the bytes as they pass."""

    def take(self, piece: bytes) -> None: ...


class Hashers:
    """The hashes of what was received of each upload, for its next request to this process: some hundred bytes each.

    One that is not here, after a restart or at another process, is made again from the bytes on the disk.
    """

    def __init__(self, maximum: int = 1000) -> None:
        self._known: LRUCache[UUID, ModelHasher] = LRUCache(maximum)

    def put(self, identity: UUID, hasher: ModelHasher) -> None:
        """Record what was hashed of an upload; it must be received."""
        self._known[identity] = hasher

    def take(self, identity: UUID, received: int) -> ModelHasher:
        """A hasher that has taken `received` bytes of the upload or fewer; it is forgotten here."""
        hasher = self._known.pop(identity, None)
        # One that is ahead has hashed bytes that were never marked, and hashes cannot go back.
        return hasher if hasher is not None and hasher.length <= received else ModelHasher()


async def take_in(
    body: Body,
    part: PartialUpload,
    hasher: ModelHasher,
    threads: ThreadPool,
    *,
    name: str,
    length: int | None,
    mark: Callable[[], Awaitable[None]] | None = None,
    digest: Digest | None = None,
) -> None:
    """Append a request's body to a part, whose bytes so far the hasher has taken. `mark` is called every MARK bytes.

    Raises WeightsRefused as soon as the beginning shows that it is no safetensors file (of `length` bytes, when that is
    known), and what Body and Part raise; what came before that is in the part and the hasher.
    """

    def keep(piece: bytes) -> None:
        part.take(piece)
        looked_at = hasher.length >= START_BYTES
        hasher.take(piece)
        if digest is not None:
            digest.take(piece)
        # As soon as the header is there: who sends 10 GB of something else is refused after its first bytes.
        if not looked_at and hasher.length >= START_BYTES:
            check_start(name, part.start(START_BYTES), MAX_BYTES if length is None else length)

    marked = hasher.length
    async for piece in body.large_pieces(PIECE):
        # Piece after piece is waited for, so memory holds one of them, however fast the sender is.
        await in_thread(threads, keep, piece)
        if mark is not None and hasher.length - marked >= MARK:
            await mark()
            marked = hasher.length


async def in_thread(threads: ThreadPool, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do what touches a part in a thread; it is waited for also when the request is cancelled, as nobody may let go of
    a part while a thread writes to it. Raises PoolBusy."""
    thread = asyncio.ensure_future(threads.run(work, *arguments, **options))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise


async def go_on(part: PartialUpload, hasher: ModelHasher, threads: ThreadPool, received: int) -> None:
    """Open a part behind its received bytes, with a hasher that has taken them. Raises EOFError when some are lost."""

    def opened() -> None:
        part.go_on_at(received)
        hash_on(hasher, part.path, received)

    await in_thread(threads, opened)


async def keep_whole(
    stores: AsyncStores, part: PartialUpload, hasher: ModelHasher, wanted: WantedFile, viewer: Viewer
) -> NewFile:
    """Check a whole file against what its sender wants and its family has, then store its bytes.

    Raises WeightsRefused, UploadRefused for another hash than was named, and what model_uploads.check_target raises:
    before anything is stored.
    """
    hashed = hasher.finish()
    if wanted.sha256 is not None and hashed.sha256 != wanted.sha256:
        raise UploadRefused(
            "sha256", f"'{wanted.name}' came with the SHA-256 {hashed.sha256}, not {wanted.sha256}. Send it again."
        )
    known = WantedFile(version_id=wanted.version_id, name=wanted.name, type=wanted.type, sha256=hashed.sha256)
    # Asked again: the version may have been deleted, or the name taken, while gigabytes came.
    model, version = await stores.database.run(uploads.check_target(known, viewer))
    threads = stores.pools.blob_writes
    return await in_thread(threads, _checked_and_stored, stores.blobs, part, hasher, known, model, version)


def _checked_and_stored(
    blobs: BlobStore, part: PartialUpload, hasher: ModelHasher, wanted: WantedFile, model: Model, version: ModelVersion
) -> NewFile:
    part.sync()
    part.close()
    family = BASE_MODELS.get(version.base_model, "other")
    found = check_model_file(part.path, family, model.type, wanted.type, called=wanted.name)
    sha256, hashes = hasher.finish()
    blob = blobs.put_hashed(part.path, sha256)
    return NewFile(
        path=wanted.name,
        role=FileRole.WEIGHTS,
        sha256=sha256,
        size=blob.size,
        hashes=hashes,
        type=wanted.type,
        size_kind=found.size_kind,
        fp=found.fp,
        checked=found.checked,
    )


def read_wanted(version_id: int, name: str, file_type: str | None, sha256: str | None) -> WantedFile:
    """What a sender wants its bytes to become. Raises InvalidRequest naming every field that is wrong, WeightsRefused
    for a name that no safetensors file has."""
    wrong: dict[str, str] = {}
    if not name or len(name) > MAX_NAME or "/" in name or "\\" in name or name.startswith("."):
        wrong["filename"] = f"expected a plain file name of at most {MAX_NAME} characters, without folders"
    elif has_control_characters(name) or not name.isprintable():
        wrong["filename"] = "must not hold control characters"
    kind = FileType.MODEL if file_type is None else next((one for one in UPLOADED_TYPES if one == file_type), None)
    if kind is None:
        wrong["fileType"] = f"expected one of: {', '.join(sorted(UPLOADED_TYPES))}"
    digits = None if sha256 is None else sha256.lower()
    if digits is not None and (len(digits) != _SHA256_DIGITS or not _HEX.issuperset(digits)):
        wrong["sha256"] = "expected 64 hex digits"
    if wrong or kind is None:
        raise InvalidRequest(wrong)
    refuse_other_name(name)
    return WantedFile(version_id=version_id, name=name, type=kind, sha256=digits)
