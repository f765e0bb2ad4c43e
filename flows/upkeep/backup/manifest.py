"""What a backup says of itself: every file and every blob of it with its hash, and what restores it.

The chain begins at the manifest, whose name holds its own SHA-256. It names the backup's files by theirs; two of them
list the blobs and MLflow's artifacts, whose names are their hashes. So one name vouches for every byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from storage.errors import BackupDamaged, BackupRefused

FORMAT = 1
DARKROOM, PREFECT, MLFLOW = "darkroom", "prefect", "mlflow"
BLOBS, ARTIFACTS, KEYS, IDENTITY = "blobs.list", "artifacts.list", "keys.age", "identity.age"
_NAME = re.compile(r"manifest-([0-9a-f]{64})\.json")


class BackupFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file of a backup: its name in the backup's folder, its bytes and their SHA-256."""

    name: str
    size: int
    sha256: str


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How many, and their bytes."""

    count: int
    size: int


class Artifact(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One file of MLflow's artifacts: its path below their root."""

    path: str
    sha256: str
    size: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """A finished backup.

    versions: of the programs that made it. postgres: the server's version number (180006). migrations: names of those
    that its schema has. lost: blobs that rows name and that were gone or changed already. without: what is not in it,
    and why. recipient: the public key that its keys are sealed to.
    """

    format: int
    name: str
    started_at: datetime
    finished_at: datetime
    versions: dict[str, str]
    postgres: int
    migrations: list[str]
    dumps: dict[str, str]
    files: list[BackupFile]
    blobs: Amount
    artifacts: Amount
    lost: list[str]
    without: list[str]
    recipient: str

    def file(self, name: str) -> BackupFile:
        """A file by its name. Raises BackupDamaged when the manifest names none."""
        for file in self.files:
            if file.name == name:
                return file
        raise BackupDamaged(f"Backup {self.name} has no file '{name}'. Take another backup: darkroom backup list.")

    def has(self, name: str) -> bool:
        """Whether a file of that name belongs to the backup."""
        return any(file.name == name for file in self.files)


def encode(manifest: Manifest) -> tuple[str, bytes]:
    """The manifest's file name and its bytes."""
    content = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    return f"manifest-{hashlib.sha256(content).hexdigest()}.json", content


def is_manifest(name: str) -> bool:
    """Whether a file of a backup is its manifest."""
    return _NAME.fullmatch(name) is not None


def decode(name: str, content: bytes) -> Manifest:
    """A manifest from its file. Raises BackupDamaged when its bytes are not those of its name, BackupRefused when a
    newer Darkroom has written it."""
    found = _NAME.fullmatch(name)
    if found is None or hashlib.sha256(content).hexdigest() != found[1]:
        raise BackupDamaged(f"{name} was changed or cut: its bytes are not those of its name. Take another backup.")
    # The number alone at first: a newer format may have fields that this struct refuses, and deserves a sentence that
    # says so.
    number = msgspec.json.decode(content, type=dict[str, object]).get("format")
    if number != FORMAT:
        raise BackupRefused(
            f"{name} has format {number}; this Darkroom reads format {FORMAT}. Restore with a newer one."
        )
    return msgspec.json.decode(content, type=Manifest)


def blob_lines(blobs: Iterable[tuple[str, int]]) -> Iterator[bytes]:
    """The list of blobs: a line for each, its SHA-256 and its size."""
    for sha256, size in blobs:
        yield f"{sha256} {size}\n".encode()


def read_blob_lines(content: bytes) -> dict[str, int]:
    """Size by SHA-256. The bytes were checked against their hash before."""
    pairs = (line.split(" ") for line in content.decode().splitlines())
    return {sha256: int(size) for sha256, size in pairs}


def artifact_lines(artifacts: Iterable[Artifact]) -> Iterator[bytes]:
    """The list of artifacts: a line of JSON for each."""
    for artifact in artifacts:
        yield msgspec.json.encode(artifact) + b"\n"


def read_artifact_lines(content: bytes) -> list[Artifact]:
    """The artifacts of a list. The bytes were checked against their hash before."""
    return [msgspec.json.decode(line, type=Artifact) for line in content.splitlines()]
