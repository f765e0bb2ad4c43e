"""Whether a backup is whole, by reading every byte of it, and whether this Darkroom can restore it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

from packaging.version import Version

from flows.upkeep.backup.backup_store import ASIDE, BackupStore
from flows.upkeep.backup.copies import damaged_blobs
from flows.upkeep.backup.manifest import (
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


@dataclass(frozen=True)
class Faults:
    """A sentence for each part that is missing, cut or changed: files of a backup's own; blobs, by SHA-256."""

    files: list[str]
    blobs: dict[str, str]

    def __str__(self) -> str:
        """The first few of them."""
        found = [*self.files, *self.blobs.values()]
        more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return f"{'; '.join(found[:SHOWN])}{more}"


def faults(store: BackupStore, name: str, check: Callable[[int], None] = lambda _: None) -> Faults:
    """What is not as it should be in a finished backup. Reads everything; the blobs only when their lists are whole.

    check: called with the number of blobs that have been read. Raises BackupDamaged for a manifest that is none,
    BackupRefused, StoreUnavailable.
    """
    manifest = store.manifest(name)
    files = _faulty_files(store, manifest)
    listed = not files.keys() & {BLOBS, ARTIFACTS}
    return Faults([*files.values()], _faulty_blobs(store, manifest, check) if listed else {})


def _faulty_blobs(
    store: BackupStore, manifest: Manifest, check: Callable[[int], None] = lambda _: None
) -> dict[str, str]:
    """A sentence for each blob that is missing or changed, by SHA-256; MLflow's artifacts lie among them."""
    wanted = blobs_of(store, manifest) | {each.sha256: each.size for each in artifacts_of(store, manifest)}
    return damaged_blobs(store.blobs, wanted, check)


def _faulty_files(store: BackupStore, manifest: Manifest) -> dict[str, str]:
    """A sentence for each file of a backup's own that is missing, cut or changed, by its name."""
    files: dict[str, str] = {}
    for file in manifest.files:
        try:
            for _ in store.pieces(manifest, file.name):
                pass
        except BackupDamaged as error:
            files[file.name] = str(error)
    return files


def check_whole(store: BackupStore, name: str, *, without_damaged: bool = False) -> dict[str, str]:
    """Read every byte of a backup before it is restored. Returns a sentence for each damaged blob, by SHA-256.

    Raises BackupDamaged when a part is missing, cut or changed, and names it. without_damaged: not for blobs; a damaged
    file of the backup's own, a dump for one, is refused all the same.
    """
    manifest = store.manifest(name)
    if files := _faulty_files(store, manifest):  # before hours of reading blobs
        raise BackupDamaged(
            f"Backup {name} is damaged: {Faults([*files.values()], {})}. Nothing was restored; take another one: "
            f"darkroom backup list {store.url}"
        )
    found = Faults([], _faulty_blobs(store, manifest))
    if found.blobs and not without_damaged:
        raise BackupDamaged(
            f"Backup {name} is damaged: {found}. Nothing was restored. Each backup in {store.url} that names these "
            f"blobs is damaged alike. {_without_platform(store, name)}"
        )
    return found.blobs


def _without_platform(store: BackupStore, name: str) -> str:
    """What to do when blobs of a place are damaged and the platform that had them is lost."""
    return (
        "Look for each in another place of backups, as blobs/ab/abcdef…, and copy it to the same path here. What is in "
        "none is lost; this restores all the rest, and names what is missing: "
        f"darkroom restore {store.url} --name {name} --without-damaged"
    )


def verify(store: BackupStore, name: str) -> None:
    """Read every byte of a backup. Damaged blobs are put aside, so that the next backup copies them again.

    Raises BackupDamaged when any part is missing, cut or changed, and says how to fix it.
    """
    found = faults(store, name)
    for sha256 in found.blobs:
        store.put_aside(sha256)
    moved = (
        f" What was there of the blobs is in {store.url}/{ASIDE} now. Back up again while the platform has them: that "
        "copies them again and repairs each backup that names them. Then verify."
    )
    if found.files:
        raise BackupDamaged(
            f"Backup {name} is damaged: {found}. Its own files are in no other place: take another backup (darkroom "
            f"backup), and go back to this one for nothing.{moved if found.blobs else ''}"
        )
    if found.blobs:
        raise BackupDamaged(
            f"Backup {name} is damaged: {found}.{moved} If the platform is lost: {_without_platform(store, name)}"
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
        # Both migrate their databases forwards only: an older program does not start on a newer schema.
        theirs, ours = manifest.versions.get(package, "0"), version(package)
        if package in manifest.dumps and Version(theirs) > Version(ours):
            raise BackupRefused(
                f"Backup {manifest.name} has {package}'s database of version {theirs}; here is {ours}. "
                f"Install {theirs}."
            )


def check_server(manifest: Manifest, server: int) -> None:
    """Raises BackupRefused when the backup is of a newer Postgres (version numbers: 180006)."""
    # By major versions: pg_restore takes dumps of older servers, not of newer ones.
    if manifest.postgres // 10_000 > server // 10_000:
        raise BackupRefused(
            f"Backup {manifest.name} is of PostgreSQL {manifest.postgres // 10_000}; this server is "
            f"{server // 10_000}. Restore into the same or a newer one."
        )
