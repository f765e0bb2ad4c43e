"""Bytes named by their SHA-256, on any file system that fsspec speaks.

A name is only ever seen whole: bytes go to a temporary name first and are moved, so a writer that dies leaves nothing
under the final one. The same bytes twice are one object.

New bytes ask nobody. A put that finds its bytes there calls `renew` before it relies on them, and looks once more
afterwards: whoever deletes bytes that no row names (flows/upkeep/blob_sweep.py) holds that call up while it does.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage.blobs.disks import link_as_new, link_checked, scan, sync_folder, take_name
from storage.blobs.failures import corrupted, failures_of, named, store_error
from storage.blobs.removal import BytesRemoval
from storage.blobs.stored import PREFIXES, Blob, StoredBlob, facts_at, is_name, modified_at
from storage.blobs.unfinished import UnfinishedBlob
from storage.errors import BlobCorrupted, BlobMissing
from storage.settings import BlobSettings

log = logging.getLogger("darkroom.blobs")

CHUNK = 1024 * 1024
INCOMING = ".incoming"
COPIES = "The folder that keeps copies of stored files"


class BlobStore:
    """Puts, opens, lists and deletes blobs under one fsspec URL.

    `renew` is called with the name of bytes that a put found, from the thread of that put; it returns once nobody is
    deleting them. Without it (a store that nobody sweeps) nobody is asked. `clock` is in Unix seconds. `piece_done` is
    called after each piece of at most CHUNK bytes that was copied or hashed: large files take long on slow connections.
    """

    def __init__(
        self,
        settings: BlobSettings,
        renew: Callable[[str], object] | None = None,
        clock: Callable[[], float] = time.time,
        piece_done: Callable[[], object] = bool,
    ) -> None:
        # Listings are never cached: what another process put or deleted must be seen at once.
        filesystem, root = cast(
            tuple[Any, str], cast(Any, fsspec).core.url_to_fs(settings.url, use_listings_cache=False)
        )
        self._fs: Any = filesystem
        self._root = root.rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)
        self._failures = failures_of(filesystem)
        self._renew, self._clock, self._piece_done = renew, clock, piece_done

    def make_root(self) -> None:
        """Make the folder or bucket that blobs are put into, where it is missing. Raises DiskFull, StoreUnavailable."""
        with named(self._failures):
            self._fs.makedirs(self._root, exist_ok=True)

    def put(self, content: bytes) -> Blob:
        """Store bytes; returns their name. Raises DiskFull, StoreUnavailable."""
        digest = hashlib.sha256(content).hexdigest()
        if not self._found(digest):
            with self._writing() as (stream, temporary):
                stream.write(content)
            self._finish(temporary, digest)
        return Blob(digest, len(content))

    def put_file(self, path: Path) -> Blob:
        """Store a file's bytes, read in pieces. Raises DiskFull, StoreUnavailable."""
        with path.open("rb") as source:
            return self.put_stream(iter(lambda: source.read(CHUNK), b""))

    def put_hashed(self, path: Path, sha256: str) -> Blob:
        """Store a file whose SHA-256 was taken while it was written. On the store's own disk it is linked, not copied:
        nobody may write to it from then on. Raises BlobCorrupted when it has other bytes by now, DiskFull,
        StoreUnavailable."""
        size = path.stat().st_size
        # The look first: bytes that are there have to be renewed before a row may name them.
        if self._found(sha256) or (self._local and self._link(path, sha256)):
            return Blob(sha256, size)
        blob = self.put_file(path)
        if blob.sha256 != sha256:
            raise BlobCorrupted(f"A file changed on its way into the blob store: {blob.sha256}, not {sha256}.")
        return blob

    def put_stream(self, pieces: Iterator[bytes]) -> Blob:
        """Store bytes that arrive in pieces, hashed on the way. Raises DiskFull, StoreUnavailable."""
        digest, size = hashlib.sha256(), 0
        with self._writing() as (stream, temporary):
            for piece in pieces:
                digest.update(piece)
                size += len(piece)
                stream.write(piece)
                self._piece_done()
        self._finish(temporary, digest.hexdigest())
        return Blob(digest.hexdigest(), size)

    def read(self, sha256: str) -> bytes:
        """The bytes of a blob, checked against its name. Raises BlobMissing, BlobCorrupted, StoreUnavailable."""
        with self.open(sha256) as stream, named(self._failures):
            content = stream.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise corrupted(sha256)
        return content

    def open(self, sha256: str) -> BinaryIO:
        """A blob's bytes as a stream that can seek, unchecked. Raises BlobMissing, StoreUnavailable."""
        with named(self._failures):
            try:
                return cast(BinaryIO, self._fs.open(self._path(sha256), "rb"))
            except FileNotFoundError as error:
                message = f"Blob {sha256} is gone. Restore it from a backup, or delete what names it."
                raise BlobMissing(message) from error

    def fetch(self, sha256: str, target: Path) -> None:
        """Write a blob to a file, checked against its name. The file appears whole or not at all.

        Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
        """
        # A name of its own: two processes may fetch the same blob into one folder.
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        digest = hashlib.sha256()
        try:
            with named(self._failures, COPIES):
                target.parent.mkdir(parents=True, exist_ok=True)
                with self.open(sha256) as source, temporary.open("wb") as sink:
                    while piece := self._read(source):
                        digest.update(piece)
                        sink.write(piece)
                        self._piece_done()
                if digest.hexdigest() != sha256:
                    raise corrupted(sha256)
                temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)

    def lend(self, sha256: str, target: Path) -> None:
        """As `fetch`, but on the store's own disk the file is linked and not copied: nobody may write to it."""
        if not (self._local and link_checked(Path(self._path(sha256)), target, sha256, self._piece_done)):
            self.fetch(sha256, target)

    def _read(self, source: BinaryIO) -> bytes:
        with named(self._failures):
            return source.read(CHUNK)

    def fetch_folder(self, files: Mapping[str, str], folder: Path) -> Path:
        """A folder with these files (path inside it to SHA-256), whole or not at all; one made before is reused."""
        if folder.exists():
            return folder
        building = folder.with_name(f".{folder.name}.{uuid4().hex}")
        try:
            for path, sha256 in files.items():
                self.fetch(sha256, building / path)
            try:
                # A rename replaces no folder that holds something: where another process was first, its folder is as
                # good.
                building.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise store_error(error, COPIES) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return folder

    def exists(self, sha256: str) -> bool:
        """Whether a blob is there. Raises StoreUnavailable."""
        return self._facts(sha256) is not None

    def age_seconds(self, sha256: str) -> float | None:
        """How long ago a blob was written; None when it is not there. Raises StoreUnavailable."""
        if (facts := self._facts(sha256)) is None:
            return None
        now = self._clock()
        return now - modified_at(facts, now)

    def _facts(self, sha256: str) -> Mapping[str, Any] | None:
        with named(self._failures):
            return facts_at(self._fs, self._path(sha256))

    def delete(self, sha256: str) -> None:
        """Remove a blob. One that is gone already is no error. Raises StoreUnavailable."""
        with named(self._failures), suppress(FileNotFoundError):
            self._fs.rm_file(self._path(sha256))

    def removing(self, sha256: str) -> AbstractContextManager[None]:
        """A blob is gone while the block runs, and for good if it ends well. Else it comes back: where a commit failed,
        the lock that kept others from naming these bytes may have been lost before. Raises DiskFull, StoreUnavailable.
        """
        return BytesRemoval(self._fs, self._local, self._failures, self._path(sha256), self._temporary()).held()

    def list(self) -> Iterator[StoredBlob]:
        """Every blob there is, in the order of their names; unfinished writes are left out. Raises StoreUnavailable."""
        # On a disk a folder that is missing costs nothing to ask for.
        present = None if self._local else self._present_folders()
        for prefix in PREFIXES:
            if present is None or prefix in present:
                yield from self._list_folder(prefix)

    def _present_folders(self) -> set[str]:
        """Which folders there are: asking an object store for those that are not takes three calls each."""
        with named(self._failures):
            try:
                paths = cast(list[str], self._fs.ls(self._root, detail=False))
            except FileNotFoundError:
                return set()
        return {path.rstrip("/").rsplit("/", 1)[-1] for path in paths}

    def _list_folder(self, prefix: str) -> list[StoredBlob]:
        now = self._clock()
        found = self._find(f"{self._root}/{prefix}")
        blobs = [
            StoredBlob(name, int(facts["size"]), now - modified_at(facts, now))
            for name, facts in ((path.rsplit("/", 1)[-1], facts) for path, facts in found.items())
            if is_name(name)
        ]
        return sorted(blobs, key=lambda blob: blob.sha256)

    def sweep_unfinished(self, older_than_seconds: float) -> int:
        """Remove what writers that died left behind; returns how many. Raises StoreUnavailable."""
        now, removed = self._clock(), 0
        for path, facts in self._find(f"{self._root}/{INCOMING}").items():
            if now - modified_at(facts, now) > older_than_seconds:
                with named(self._failures), suppress(FileNotFoundError):
                    self._fs.rm_file(path)
                    removed += 1
        return removed

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        with named(self._failures):
            if self._local:
                return scan(Path(folder))
            try:
                return cast(dict[str, dict[str, Any]], self._fs.find(folder, detail=True))
            except FileNotFoundError:
                return {}

    def _path(self, sha256: str) -> str:
        if not is_name(sha256):
            raise BlobMissing(f"'{sha256}' is not the name of a blob: it must be 64 hex digits.")
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _temporary(self) -> str:
        return f"{self._root}/{INCOMING}/{uuid4().hex}"

    def _found(self, sha256: str) -> bool:
        """Whether the blob is there to stay: it was found, asked for, and found again."""
        path = self._path(sha256)
        if not self.exists(sha256):
            return False
        if self._renew is not None:
            self._renew(sha256)
            if not self.exists(sha256):
                return False
        if self._local:
            with named(self._failures):
                # Who moved it there may not have come to this yet, and our row will be on the disk.
                sync_folder(Path(path).parent)
        return True

    def _writing(self) -> UnfinishedBlob:
        return UnfinishedBlob(self._fs, self._temporary(), self._failures, local=self._local)

    def _link(self, path: Path, sha256: str) -> bool:
        """Give a file on the store's disk its name there too; whether that could be done."""
        temporary = self._temporary()
        if not link_as_new(path, Path(temporary)):
            return False
        self._finish(temporary, sha256)
        return True

    def _finish(self, temporary: str, sha256: str) -> None:
        """Give whole bytes their name. Where another put was first its bytes stay, and ours go."""
        path = self._path(sha256)
        try:
            with named(self._failures):
                if self._local:
                    # Taken, so it is asked for like any bytes that are there. If a sweep deleted them meanwhile, the
                    # name is free again.
                    while not take_name(Path(temporary), Path(path)):
                        if self._found(sha256):
                            break
                elif not self._found(sha256):
                    # Object stores know no rename; a copy appears there whole or not at all.
                    self._fs.cp_file(temporary, path)
        finally:
            with suppress(*self._failures):  # what stays is swept a day later
                self._fs.rm_file(temporary)
