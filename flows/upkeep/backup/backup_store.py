"""The place where backups are kept: a folder, or anything else that fsspec speaks.

blobs/ab/abcdef…                            bytes named by their SHA-256, shared by every backup here
damaged/abcdef…                             what was a blob and has other bytes by now
backups/2026-11-28T03-17-00Z-1f3a9c04/      one backup: its dumps, lists and sealed keys ...
    manifest-<its own SHA-256>.json         ... and, written last, what makes it one
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flows.upkeep.backup.manifest import BackupFile, Manifest, decode, encode, is_manifest
from storage.blobs.disks import sync_folder
from storage.blobs.failures import failures_of, named
from storage.blobs.store import CHUNK, BlobStore
from storage.blobs.stored import facts_at, modified_at
from storage.errors import BackupDamaged, BackupRefused
from storage.settings import BlobSettings

Say = Callable[[str], None]
"""Reports what was done, one line at a time."""
ASIDE = "damaged"
"""The folder of a place that damaged blobs are moved to. Nothing reads or removes them."""


class HashedSink:
    """Takes bytes, and knows how many they were and their SHA-256."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._digest, self.size = stream, hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        """Write some bytes."""
        self._digest.update(piece)
        self.size += len(piece)
        self._stream.write(piece)

    def file(self, name: str) -> BackupFile:
        """What was written, under its name."""
        return BackupFile(name=name, size=self.size, sha256=self._digest.hexdigest())


def as_url(place: str) -> str:
    """A folder's path or an fsspec URL, as a URL. Raises BackupRefused for nothing."""
    if not place.strip():
        raise BackupRefused("No place for backups. Name a folder or a URL, or set DARKROOM_BACKUP__DESTINATION.")
    return place if "://" in place else Path(place).expanduser().absolute().as_uri()


class BackupStore:
    """Backups in one place."""

    def __init__(self, place: str) -> None:
        """Raises BackupRefused for a URL that cannot be opened here."""
        self.url = as_url(place).rstrip("/")
        try:
            # fsspec keeps listings of remote stores: what another process has written or removed would not be seen.
            filesystem, root = cast(
                tuple[Any, str], cast(Any, fsspec).core.url_to_fs(self.url, use_listings_cache=False)
            )
        except (ImportError, ValueError) as error:
            raise BackupRefused(f"{self.url} cannot be opened: {error}") from error
        self._fs: Any = filesystem
        self._failures = failures_of(filesystem)
        self._root = root.rstrip("/")
        self.local: Path | None = Path(self._root) if isinstance(filesystem, LocalFileSystem) else None
        self.blobs = BlobStore(BlobSettings(url=f"{self.url}/blobs"))

    def finished(self) -> list[str]:
        """The names of finished backups, the oldest first."""
        return sorted({_backup_of(path) for path in self._files() if is_manifest(PurePosixPath(path).name)})

    def unfinished(self) -> dict[str, float]:
        """Backups without a manifest: by name, seconds since something was last written to one."""
        now, finished, ages = time.time(), set(self.finished()), dict[str, float]()
        for path, facts in self._files().items():
            name = _backup_of(path)
            if name not in finished:
                ages[name] = min(ages.get(name, float("inf")), now - modified_at(facts, now))
        return ages

    def newest(self, name: str | None = None) -> str:
        """The newest finished backup, or the one of this name. Raises BackupRefused when there is none."""
        finished = self.finished()
        if name is None and finished:
            return finished[-1]
        if name in finished:
            return name
        there = ", ".join(finished) or "none"
        started = ", ".join(self.unfinished()) or "none"
        raise BackupRefused(
            f"No finished backup {name or ''} in {self.url}. Finished: {there}. Without a manifest, so cut: {started}."
        )

    def manifest(self, name: str) -> Manifest:
        """The manifest of a finished backup. Raises BackupDamaged, BackupRefused, StoreUnavailable."""
        names = [PurePosixPath(path).name for path in self._files() if _backup_of(path) == name]
        manifests = [file for file in names if is_manifest(file)]
        if len(manifests) != 1:
            raise BackupDamaged(f"Backup {name} has {len(manifests)} manifests; it must have one. Take another backup.")
        with self.open(name, manifests[0]) as stream:
            return decode(manifests[0], stream.read())

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest: from now on the backup is one."""
        file, content = encode(manifest)
        with self.writing(manifest.name, file) as sink:
            sink.write(content)

    @contextmanager
    def writing(self, name: str, file: str) -> Generator[HashedSink]:
        """Write a file of a backup: there whole and on the disk at the end, or not at all.

        Raises DiskFull, StoreUnavailable.
        """
        path = self._path(name, file)
        beside = f"{path}.part"
        with named(self._failures, self.url):
            self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            # An object store shows an object only when it is whole; a folder needs the move.
            with cast(BinaryIO, self._fs.open(beside if self.local else path, "wb")) as stream:
                yield HashedSink(stream)
                if self.local:
                    stream.flush()
                    os.fsync(stream.fileno())
            if self.local:
                Path(beside).replace(path)
                sync_folder(Path(path).parent)

    @contextmanager
    def open(self, name: str, file: str) -> Generator[BinaryIO]:
        """A file of a backup. Raises BackupDamaged when it is gone, StoreUnavailable."""
        with named(self._failures, self.url):
            try:
                stream = cast(BinaryIO, self._fs.open(self._path(name, file), "rb"))
            except FileNotFoundError as error:
                raise BackupDamaged(f"Backup {name} lacks its file '{file}'. Take another backup.") from error
            with stream:
                yield stream

    def read(self, manifest: Manifest, file: str) -> bytes:
        """A file's bytes, checked. Raises BackupDamaged, StoreUnavailable."""
        return b"".join(self.pieces(manifest, file))

    def pieces(self, manifest: Manifest, file: str) -> Generator[bytes]:
        """A file's bytes in pieces. Raises BackupDamaged after the last one when they are not those of the manifest."""
        wanted, digest, size = manifest.file(file), hashlib.sha256(), 0
        with self.open(manifest.name, file) as stream:
            while piece := stream.read(CHUNK):
                digest.update(piece)
                size += len(piece)
                yield piece
        if size != wanted.size:
            raise BackupDamaged(
                f"Backup {manifest.name}: '{file}' has {size:,} bytes and should have {wanted.size:,}. It was cut or "
                "added to; take another backup."
            )
        if digest.hexdigest() != wanted.sha256:
            raise BackupDamaged(f"Backup {manifest.name}: the bytes of '{file}' have changed. Take another backup.")

    def delete(self, name: str) -> None:
        """Remove a backup: its manifest first, so that one that is half gone is none. Its blobs stay.

        Raises DiskFull, StoreUnavailable."""
        paths = [path for path in self._files() if _backup_of(path) == name]
        with named(self._failures, self.url):
            for path in sorted(paths, key=lambda path: not is_manifest(PurePosixPath(path).name)):
                self._fs.rm_file(path)
            if self.local:
                (self.local / "backups" / name).rmdir()

    def put_aside(self, sha256: str) -> None:
        """Take the name from a damaged blob, and keep its bytes. One that is gone is no error."""
        with named(self._failures, self.url), suppress(FileNotFoundError):
            self._fs.makedirs(f"{self._root}/{ASIDE}", exist_ok=True)
            self._fs.mv(f"{self._root}/blobs/{sha256[:2]}/{sha256}", f"{self._root}/{ASIDE}/{sha256}")

    def check_reachable(self) -> None:
        """Make the place if it is new, closed to others. Raises DiskFull, StoreUnavailable when that cannot be done."""
        with named(self._failures, self.url):
            for folder in (self.local, self.local / "backups", self.local / "blobs") if self.local else ():
                # Dumps are not encrypted.
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _path(self, name: str, file: str) -> str:
        return f"{self._root}/backups/{name}/{file}"

    def _files(self) -> dict[str, dict[str, Any]]:
        folder = f"{self._root}/backups"
        with named(self._failures, self.url):
            found = {} if facts_at(self._fs, folder) is None else self._fs.find(folder, detail=True)
        return cast(dict[str, dict[str, Any]], found)


def verified(pieces: Iterable[bytes], sha256: str, error: Exception) -> Generator[bytes]:
    """The same pieces. Raises `error` after the last one when they do not have this SHA-256."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        yield piece
    if digest.hexdigest() != sha256:
        raise error


def check_outside(store: BackupStore, data_folder: Path) -> None:
    """Raises BackupRefused for a place in the data folder: what destroys the one destroys the other."""
    if store.local is not None and store.local.resolve().is_relative_to(data_folder.resolve()):
        raise BackupRefused(f"{store.local} is in the data folder {data_folder}. Back up to another disk or machine.")


def check_there(store: BackupStore) -> None:
    """Raises BackupRefused when a folder to restore from is not there, StoreUnavailable when it does not respond."""
    if store.local is not None and not store.local.is_dir():
        raise BackupRefused(f"There is no folder {store.local}. Name the place that `darkroom backup` wrote to.")
    store.finished()


def _backup_of(path: str) -> str:
    return PurePosixPath(path).parent.name
