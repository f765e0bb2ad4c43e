"""Bytes named by their SHA-256, on any file system that fsspec speaks.

A name is only ever seen whole: bytes go to a temporary name first and are moved, so a writer that dies leaves nothing
under the final one. The same bytes twice are one object.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storage.errors import BlobCorrupted, BlobMissing, DiskFull, StoreUnavailable
from storage.settings import BlobSettings

CHUNK = 1024 * 1024
INCOMING = ".incoming"


@dataclass(frozen=True)
class Blob:
    """Bytes in the store: their SHA-256 (64 hex digits) and how many they are."""

    sha256: str
    size: int


@dataclass(frozen=True)
class StoredBlob:
    """A blob as the store lists it, with its age in seconds."""

    sha256: str
    size: int
    age_seconds: float


class BlobStore:
    """Puts, opens, lists and deletes blobs under one fsspec URL."""

    def __init__(self, settings: BlobSettings) -> None:
        filesystem, root = cast(tuple[Any, str], cast(Any, fsspec).core.url_to_fs(settings.url))
        self._fs: Any = filesystem
        self._root = root.rstrip("/")
        self._local = isinstance(filesystem, LocalFileSystem)

    def put(self, content: bytes) -> Blob:
        """Store bytes; gives their name. Raises DiskFull, StoreUnavailable."""
        digest = hashlib.sha256(content).hexdigest()
        if not self._refresh(digest):
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
        if self._refresh(sha256) or (self._local and self._link(path, sha256)):
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
        name = digest.hexdigest()
        if self._refresh(name):
            self._fs.rm_file(temporary)
        else:
            self._finish(temporary, name)
        return Blob(name, size)

    def read(self, sha256: str) -> bytes:
        """The bytes of a blob, checked against its name. Raises BlobMissing, BlobCorrupted, StoreUnavailable."""
        with self.open(sha256) as stream:
            content = stream.read()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _corrupted(sha256)
        return content

    def open(self, sha256: str) -> BinaryIO:
        """A blob's bytes as a stream that can seek, unchecked. Raises BlobMissing, StoreUnavailable."""
        try:
            return cast(BinaryIO, self._fs.open(self._path(sha256), "rb"))
        except FileNotFoundError as error:
            raise BlobMissing(f"Blob {sha256} is gone. Restore it from a backup, or delete what names it.") from error
        except OSError as error:
            raise store_error(error) from error

    def fetch(self, sha256: str, target: Path) -> None:
        """Write a blob to a file, checked against its name. The file appears whole or not at all.

        Raises BlobMissing, BlobCorrupted, DiskFull, StoreUnavailable.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        digest = hashlib.sha256()
        try:
            with self.open(sha256) as source, temporary.open("wb") as sink:
                while piece := source.read(CHUNK):
                    digest.update(piece)
                    sink.write(piece)
            if digest.hexdigest() != sha256:
                raise _corrupted(sha256)
            temporary.replace(target)
        except OSError as error:
            raise store_error(error) from error
        finally:
            temporary.unlink(missing_ok=True)

    def fetch_folder(self, files: Mapping[str, str], folder: Path) -> Path:
        """A folder with these files (path inside it to SHA-256), whole or not at all; one made before is reused."""
        if folder.exists():
            return folder
        building = folder.with_name(f".{folder.name}.{uuid4().hex}")
        try:
            for path, sha256 in files.items():
                self.fetch(sha256, building / path)
            try:
                building.rename(folder)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise store_error(error) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return folder

    def exists(self, sha256: str) -> bool:
        """Whether a blob is there."""
        return bool(self._fs.exists(self._path(sha256)))

    def delete(self, sha256: str) -> None:
        """Remove a blob. One that is gone already is no error."""
        try:
            self._fs.rm_file(self._path(sha256))
        except FileNotFoundError:
            return

    def list(self) -> Iterator[StoredBlob]:
        """Every blob there is, with its age; unfinished writes are left out."""
        now = time.time()
        for path, facts in self._find(self._root).items():
            name = path.rsplit("/", 1)[-1]
            if f"/{INCOMING}/" not in path and len(name) == 64:
                yield StoredBlob(name, int(facts["size"]), now - _modified(facts, now))

    def sweep_unfinished(self, older_than_seconds: float) -> int:
        """Remove what writers that died left behind; gives how many."""
        folder, now, removed = f"{self._root}/{INCOMING}", time.time(), 0
        for path, facts in self._find(folder).items():
            if now - _modified(facts, now) > older_than_seconds:
                self._fs.rm_file(path)
                removed += 1
        return removed

    def _find(self, folder: str) -> dict[str, dict[str, Any]]:
        if not self._fs.exists(folder):
            return {}
        return cast(dict[str, dict[str, Any]], self._fs.find(folder, detail=True))

    def _path(self, sha256: str) -> str:
        if len(sha256) != 64 or not sha256.isalnum():
            raise BlobMissing(f"'{sha256}' is not the name of a blob: it must be 64 hex digits.")
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _refresh(self, sha256: str) -> bool:
        """Whether the blob is there; if so it is young again, so that the sweep of orphans leaves it to the new row."""
        path = self._path(sha256)
        if not self._fs.exists(path):
            return False
        if self._local:
            try:
                os.utime(path)
            except FileNotFoundError:
                return False
        return True

    def _writing(self) -> _Writing:
        return _Writing(self._fs, f"{self._root}/{INCOMING}/{uuid4().hex}", local=self._local)

    def _link(self, path: Path, sha256: str) -> bool:
        """Give a file on the store's disk its name there too; whether that could be done."""
        temporary = f"{self._root}/{INCOMING}/{uuid4().hex}"
        try:
            self._fs.makedirs(f"{self._root}/{INCOMING}", exist_ok=True)
            os.link(path, temporary)
        except OSError:  # another disk, or a file system without links: the caller copies
            return False
        self._finish(temporary, sha256)
        return True

    def _finish(self, temporary: str, sha256: str) -> None:
        path = self._path(sha256)
        try:
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            if self._local:
                Path(temporary).replace(path)
            else:
                self._fs.mv(temporary, path)
        except OSError as error:
            raise store_error(error) from error


class _Writing:
    """A stream to a temporary name, on the disk when it closes, gone when the writer fails."""

    def __init__(self, filesystem: Any, path: str, *, local: bool) -> None:
        self._fs, self._path, self._local = filesystem, path, local

    def __enter__(self) -> tuple[BinaryIO, str]:
        try:
            self._fs.makedirs(self._path.rsplit("/", 1)[0], exist_ok=True)
            self._stream = cast(
                BinaryIO, Path(self._path).open("wb") if self._local else self._fs.open(self._path, "wb")
            )
        except OSError as error:
            raise store_error(error) from error
        return self._stream, self._path

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None and self._local:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            self._stream.close()
        except OSError as failed:
            self._discard()
            raise store_error(failed) from failed
        if error is not None:
            self._discard()
            if isinstance(error, OSError):
                raise store_error(error) from error

    def _discard(self) -> None:
        if self._fs.exists(self._path):
            self._fs.rm_file(self._path)


def _modified(facts: Mapping[str, Any], now: float) -> float:
    """When a listed file was last written (Unix seconds); file systems name it differently."""
    value = facts.get("mtime", facts.get("LastModified", now))
    return float(value.timestamp() if hasattr(value, "timestamp") else value)


def _corrupted(sha256: str) -> BlobCorrupted:
    return BlobCorrupted(f"Blob {sha256} no longer has the bytes of its name. Restore it from a backup.")


def store_error(error: OSError) -> DiskFull | StoreUnavailable:
    """The named error for a file system's own: no room left, or the store does not answer."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull("The blob store has no room left. Free some space, then retry.")
    return StoreUnavailable(f"The blob store does not answer ({type(error).__name__}: {error.strerror}).")
