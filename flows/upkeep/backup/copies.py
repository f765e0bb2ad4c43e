"""Bytes on their way into a backup and out of it: only what is not there yet, each checked against its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, cast

import fsspec

from flows.upkeep.backup.backup_store import verified
from flows.upkeep.backup.manifest import Amount, Artifact
from storage.backoff import retried
from storage.blobs.failures import failures_of, named
from storage.blobs.store import CHUNK, BlobStore
from storage.blobs.stored import Blob, facts_at
from storage.errors import BackupDamaged, BackupFailed, BlobCorrupted, BlobMissing

THREADS = 4
BATCH = 1000
CHANGING_TRIES = 5


@dataclass
class Copied:
    """What was copied: size by SHA-256; and what could not be, a sentence for each."""

    sizes: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)

    @property
    def amount(self) -> Amount:
        """How many, and their bytes."""
        return Amount(count=len(self.sizes), size=sum(self.sizes.values()))


def copy_blobs(source: BlobStore, target: BlobStore, wanted: Mapping[str, int], there: Mapping[str, int]) -> Copied:
    """Copy what `target` lacks of `wanted` (size by SHA-256); `there` is what it has; what it has in another size
    is replaced. Blobs that `source` has lost or that have changed are named, and the others copied all the same.

    Raises DiskFull, StoreUnavailable.
    """
    copied = Copied()

    def copy(sha256: str) -> Blob | str:
        try:
            with source.open(sha256) as stream:
                damaged = BlobCorrupted(f"Blob {sha256} no longer has the bytes of its name.")
                return _put(target, verified(read_pieces(stream), sha256, damaged), sha256, there)
        except (BlobMissing, BlobCorrupted) as error:
            # The first sentence: the second says what to do about a store, which is not what a list of losses is for.
            return str(error).split(". ", 1)[0].rstrip(".")

    with ThreadPoolExecutor(THREADS) as threads:
        # In batches, because `map` would begin with all of them at once and keep a future for each.
        for batch in batches((sha256 for sha256, size in wanted.items() if there.get(sha256) != size), BATCH):
            for made in threads.map(copy, batch):
                if isinstance(made, str):
                    copied.lost.append(made)
                else:
                    copied.sizes[made.sha256] = made.size
    return copied


def _put(target: BlobStore, pieces: Iterable[bytes], sha256: str, there: Mapping[str, int]) -> Blob:
    """Put verified bytes, instead of damaged ones under their name: a put leaves alone what it finds."""

    def replacing() -> Iterator[bytes]:
        yield from pieces
        if sha256 in there:
            target.delete(sha256)  # the good bytes are all there, under another name yet

    return target.put_stream(replacing())


def read_pieces(stream: BinaryIO) -> Iterator[bytes]:
    """A stream's bytes, a MiB at a time."""
    while piece := stream.read(CHUNK):
        yield piece


def batches(things: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of `size` things at most."""
    rest = iter(things)
    while batch := list(islice(rest, size)):
        yield batch


def listing(store: BlobStore) -> dict[str, int]:
    """Every blob of a store: size by SHA-256."""
    return {blob.sha256: blob.size for blob in store.list()}


def trusted(store: BlobStore, wanted: Mapping[str, int]) -> dict[str, int]:
    """Size by SHA-256 of every blob of a store. The bytes of those that are wanted are read: a changed one has size -1.

    Raises StoreUnavailable.
    """
    there = listing(store)
    # Only these have to be read: another size shows by itself that the bytes are others.
    same = {sha256: size for sha256, size in wanted.items() if there.get(sha256) == size}
    return there | dict.fromkeys(damaged_blobs(store, same, lambda _: None), -1)


def copy_artifacts(url: str, target: BlobStore, there: Mapping[str, int]) -> tuple[list[Artifact], Copied]:
    """Copy MLflow's artifacts, which may be written meanwhile, as blobs that `target` lacks; returns their paths.

    Raises BackupFailed for a file that never rests, DiskFull, StoreUnavailable.
    """
    filesystem, root = cast(tuple[Any, str], cast(Any, fsspec).core.url_to_fs(url))
    artifacts: list[Artifact] = []
    copied, known = Copied(), dict(there)
    with named(failures_of(filesystem), url):
        paths: list[str] = [] if facts_at(filesystem, root) is None else sorted(filesystem.find(root))
    for path in paths:
        artifact = _copy_artifact(filesystem, root.rstrip("/"), path, target, known)
        if artifact is None:
            continue  # deleted meanwhile
        artifacts.append(artifact)
        if known.get(artifact.sha256) != artifact.size:
            known[artifact.sha256] = copied.sizes[artifact.sha256] = artifact.size
    return artifacts, copied


def _copy_artifact(
    filesystem: Any, root: str, path: str, target: BlobStore, known: Mapping[str, int]
) -> Artifact | None:
    def copy() -> Artifact:
        with named(failures_of(filesystem), path):
            return _copy_as_it_is(filesystem, root, path, target, known)

    try:
        return retried(copy, BlobCorrupted, patience_seconds=None, attempts=CHANGING_TRIES, first_seconds=0.1)
    except BlobMissing:
        return None
    except BlobCorrupted as error:
        raise BackupFailed(
            f"MLflow's artifact {path} changed each time it was read. Back up again when it rests."
        ) from error


def _copy_as_it_is(filesystem: Any, root: str, path: str, target: BlobStore, known: Mapping[str, int]) -> Artifact:
    """Raises BlobMissing for a file that was deleted, BlobCorrupted for one that changes while it is read."""
    digest, size = hashlib.sha256(), 0
    try:
        with filesystem.open(path, "rb") as stream:
            for piece in read_pieces(stream):
                digest.update(piece)
                size += len(piece)
        sha256 = digest.hexdigest()
        # Read twice where it is new: the hash is its name, so it has to be known before the first byte is written.
        if known.get(sha256) != size:
            with filesystem.open(path, "rb") as stream:
                _put(target, verified(read_pieces(stream), sha256, BlobCorrupted(path)), sha256, known)
    except FileNotFoundError as error:
        raise BlobMissing(path) from error
    return Artifact(path=path.removeprefix(root).lstrip("/"), sha256=sha256, size=size)


def restore_artifacts(source: BlobStore, artifacts: Iterable[Artifact], url: str) -> int:
    """Write MLflow's artifacts below a URL; returns how many. Raises BackupDamaged, DiskFull, StoreUnavailable."""
    filesystem, root = cast(tuple[Any, str], cast(Any, fsspec).core.url_to_fs(url))
    written = 0
    for artifact in artifacts:
        path = f"{root.rstrip('/')}/{artifact.path}"
        # The list is checked against the manifest's hash, not against whoever wrote both.
        if ".." in artifact.path.split("/"):
            raise BackupDamaged(f"The backup names an artifact outside their folder: {artifact.path}")
        damaged = BackupDamaged(f"Blob {artifact.sha256} of the backup has changed. Take another backup.")
        with named(failures_of(filesystem), url), source.open(artifact.sha256) as stream:
            filesystem.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
            with filesystem.open(path, "wb") as sink:
                for piece in verified(read_pieces(stream), artifact.sha256, damaged):
                    sink.write(piece)
        written += 1
    return written


def damaged_blobs(store: BlobStore, wanted: Mapping[str, int], check: Callable[[int], None]) -> dict[str, str]:
    """A sentence for each of the wanted blobs that is missing, cut or changed, by its SHA-256. Every byte is read.

    check: called with the number of blobs that have been read.
    """
    faults: dict[str, str] = {}

    def read(sha256: str) -> str:
        digest, size = hashlib.sha256(), 0
        try:
            with store.open(sha256) as stream:
                for piece in read_pieces(stream):
                    digest.update(piece)
                    size += len(piece)
        except BlobMissing:
            return f"blob {sha256} is missing"
        if size != wanted[sha256]:
            return f"blob {sha256} has {size:,} bytes and should have {wanted[sha256]:,}"
        return "" if digest.hexdigest() == sha256 else f"the bytes of blob {sha256} have changed"

    done = 0
    with ThreadPoolExecutor(THREADS) as threads:
        for batch in batches(sorted(wanted), BATCH):
            faults |= {name: fault for name, fault in zip(batch, threads.map(read, batch), strict=True) if fault}
            done += len(batch)
            check(done)
    return faults
