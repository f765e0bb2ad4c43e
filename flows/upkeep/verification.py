"""Whether a backup is whole, by reading every byte of it, and whether this Darkroom can restore it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from packaging.version import Version

from flows.upkeep.backup_store import BackupStore
from flows.upkeep.copies import damaged_blobs
from flows.upkeep.manifest import (
    ARTIFACTS,
    BLOBS,
    DARKROOM,
    MLFLOW,
    PREFECT,
    Artifact,
    Manifest,
    read_artifact_lines,
    read_blob_lines,
)
from storage.errors import BackupDamaged, BackupRefused
from storage.postgres.migrating import MIGRATIONS

SHOWN = 5


def blobs_of(store: BackupStore, manifest: Manifest) -> dict[str, int]:
    """Size by SHA-256 of the blobs that the backup's rows name, without those that were lost before it."""
    return read_blob_lines(store.read(manifest, BLOBS))


def artifacts_of(store: BackupStore, manifest: Manifest) -> list[Artifact]:
    """MLflow's artifacts of a backup."""
    return read_artifact_lines(store.read(manifest, ARTIFACTS)) if manifest.has(ARTIFACTS) else []


def faults(store: BackupStore, name: str, check: Callable[[int], None] = lambda _: None) -> list[str]:
    """A sentence for each part of a finished backup that is missing, cut or changed. Reads everything.

    check: called with the number of blobs that have been read. Raises BackupDamaged for a manifest that is none,
    BackupRefused, StoreUnavailable.
    """
    manifest = store.manifest(name)
    found: list[str] = []
    for file in manifest.files:
        try:
            for _ in store.pieces(manifest, file.name):
                pass
        except BackupDamaged as error:
            found.append(str(error))
    if found:
        return found  # the lists may be among them
    wanted = blobs_of(store, manifest) | {each.sha256: each.size for each in artifacts_of(store, manifest)}
    return damaged_blobs(store.blobs, wanted, check)


def check_whole(store: BackupStore, name: str, check: Callable[[int], None] = lambda _: None) -> None:
    """Raises BackupDamaged when any part of a backup is missing, cut or changed, and names it."""
    found = faults(store, name, check)
    if found:
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise BackupDamaged(
            f"Backup {name} is damaged: {'; '.join(found[:SHOWN])}{more}. Nothing was restored; take another one: "
            f"darkroom backup list {store.url}"
        )


def check_known(manifest: Manifest) -> None:
    """Raises BackupRefused for a backup of a schema, or of databases, that newer programs have made."""
    known = {file.stem for file in MIGRATIONS.glob("*.sql")}
    unknown = [name for name in manifest.migrations if name not in known]
    if unknown:
        raise BackupRefused(
            f"Backup {manifest.name} is of another schema: this Darkroom does not know {', '.join(unknown)}. Install "
            f"the Darkroom that made it ({manifest.versions.get(DARKROOM)}) or a newer one."
        )
    for package in (PREFECT, MLFLOW):
        theirs, ours = manifest.versions.get(package, "0"), version(package)
        if package in manifest.dumps and Version(theirs) > Version(ours):
            raise BackupRefused(
                f"Backup {manifest.name} has {package}'s database of version {theirs}; here is {ours}. "
                f"Install {theirs}."
            )


def check_server(manifest: Manifest, server: int) -> None:
    """Raises BackupRefused when the backup is of a newer Postgres (version numbers: 180006)."""
    if manifest.postgres // 10_000 > server // 10_000:
        raise BackupRefused(
            f"Backup {manifest.name} is of PostgreSQL {manifest.postgres // 10_000}; this server is "
            f"{server // 10_000}. Restore into the same or a newer one."
        )
