"""`darkroom restore`: a whole platform from a backup, into a data folder that is not there yet.

Everything is checked before anything is written: the target, the schema, the passphrase, the backup byte by byte. Then
everything is written into a folder beside the data folder, which takes its name when all of it is there. A restore that
dies leaves that other folder, and the next one begins with removing it. Databases on servers of one's own are marked
meanwhile (restoring.py): none starts half restored, and the next restore empties them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from deployments.restore.database_mark import unmark
from deployments.restore.folder_mark import BESIDE, MARK, take_mark
from deployments.restore.restored_databases import Databases
from deployments.restore.stores_in_use import refuse_stores_in_use
from flows.upkeep.backup import sealed_keys
from flows.upkeep.backup.backup_store import BackupStore, Say, check_there
from flows.upkeep.backup.copies import copy_blobs, restore_artifacts, trusted
from flows.upkeep.backup.manifest import IDENTITY, KEYS, Manifest
from flows.upkeep.backup.verification import artifacts_of, blobs_of, check_known, check_server, check_whole
from storage.blobs.store import BlobStore
from storage.errors import BackupDamaged, BackupRefused
from storage.postgres.upkeep import restored
from storage.secret_files import write_secret
from storage.settings import Settings

NAMED = 20
"""So many blobs that were left out are named, and the others counted."""


@dataclass
class Restored:
    """What was restored. `notes` are sentences about what was not, and what to do."""

    manifest: Manifest
    reopened: restored.Reopened
    blobs: int
    artifacts: int
    secrets: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Choices:
    """How to restore. name: of the backup; None: the newest. take_over: blobs and searches of the platform before it
    are replaced. without_damaged: blobs that are missing or damaged in the backup are left out. See
    storage/postgres/upkeep/restored.py for the others."""

    name: str | None = None
    jump: int = restored.JUMP
    hold_notifications: bool = False
    take_over: bool = False
    without_damaged: bool = False


def restore(
    settings: Settings, place: str, ask_passphrase: Callable[[], str], say: Say, choices: Choices = Choices()
) -> Restored:
    """Restore a backup from a folder or URL.

    Raises BackupRefused, BackupDamaged, SealBroken before anything is written; BackupFailed, DiskFull, StoreUnavailable
    later, and then there still is no data folder.
    """
    store = BackupStore(place)
    check_there(store)
    refuse_occupied(settings.data_folder)
    manifest = store.manifest(store.newest(choices.name))
    check_known(manifest)
    databases = Databases(settings, manifest)
    check_server(manifest, databases.check_empty())
    databases.check_search()
    if not choices.take_over:
        refuse_stores_in_use(settings)
    sealed, identity = store.read(manifest, KEYS), store.read(manifest, IDENTITY).decode()
    secrets = sealed_keys.unseal(sealed, identity, ask_passphrase())
    say(f"backup {manifest.name}: every byte of it is read before anything is written")
    # The whole backup is read, which may take hours, after all that can be refused in a moment.
    damaged = check_whole(store, manifest.name, without_damaged=choices.without_damaged)
    if damaged:
        say(f"{len(damaged):,} blobs of the backup are missing or damaged: it is restored without them")
    with folder_beside(settings.data_folder, lambda: unmark(settings)) as folder:
        target = moved_into(settings, folder)
        done = Restored(manifest, restored.nothing(), 0, 0, sorted(secrets))
        _write_secrets(target, secrets, manifest, identity)
        _copy_bytes(target, store, damaged, done, say)
        with serving_in(target):
            databases = Databases(target, manifest)
            done.reopened = databases.fill(store, choices.jump, choices.hold_notifications, say)
            done.notes += databases.notes
    done.notes += [f"lost before the backup: {fault}" for fault in manifest.lost]
    return done


def refuse_occupied(folder: Path) -> None:
    """Raises BackupRefused unless the data folder is missing, or empty and no mount point."""
    if os.path.ismount(folder):
        raise BackupRefused(
            f"{folder} is a mount point, and a restored folder could not take its name. Set DARKROOM_DATA_FOLDER to a "
            f"folder inside it, {folder / 'darkroom'} for one."
        )
    if (folder / MARK).exists() and not folder.name.endswith(BESIDE):
        raise BackupRefused(f"{folder} is restored already, whole. Start it with: darkroom up")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BackupRefused(
            f"{folder} is not empty, and a restore replaces nothing. Stop what runs there and move it away, or set "
            "DARKROOM_DATA_FOLDER to a new folder."
        )


@contextmanager
def folder_beside(folder: Path, finish: Callable[[], None] = lambda: None) -> Generator[Path]:
    """A new folder that becomes `folder` at the end, and then `finish` is called. What an earlier restore left there is
    removed first.

    Raises BackupRefused for one that is not a restore's.
    """
    beside = folder.with_name(folder.name + BESIDE)
    if beside.exists() and not (beside / MARK).exists():
        raise BackupRefused(f"{beside} is in the way and no restore has left it. Move it away.")
    shutil.rmtree(beside, ignore_errors=True)
    old = os.umask(0o077)
    try:
        beside.mkdir(parents=True, mode=0o700)
        (beside / MARK).write_text(f"`darkroom restore` fills this folder; then it becomes {folder}.\n")
        yield beside
        (beside / "postgres.log").unlink(missing_ok=True)
        # The name comes last and only over bytes that are on the disk: a power cut must not leave a whole name on half
        # a folder.
        os.sync()
        beside.rename(folder)
        # After the rename, and the folder's mark last of all: whoever dies in between leaves what `finish` of the next
        # start recognises as whole.
        finish()
        take_mark(folder)
    finally:
        os.umask(old)


def moved_into(settings: Settings, folder: Path) -> Settings:
    """The settings with everything that lies in their data folder in another one."""
    target = settings.model_copy(update={"data_folder": folder})
    here, there = settings.data_folder.as_uri() + "/", folder.as_uri() + "/"

    def moved(url: str) -> str:
        return url.replace(here, there, 1) if url.startswith(here) else url

    def database(url: SecretStr, name: str) -> SecretStr:
        embedded = url.get_secret_value() == settings.embedded_postgres_url(name)
        return SecretStr(target.embedded_postgres_url(name)) if embedded else url

    backup = settings.backup
    key_file = Path(backup.key_file)
    if key_file.is_relative_to(settings.data_folder):
        key_file = folder / key_file.relative_to(settings.data_folder)
    changed = {
        "mlflow_artifacts": moved(backup.mlflow_artifacts),
        "key_file": str(key_file),
        "prefect_database": database(backup.prefect_database, "prefect"),
        "mlflow_database": database(backup.mlflow_database, "mlflow"),
    }
    return target.model_copy(
        update={
            "backup": backup.model_copy(update=changed),
            "blobs": settings.blobs.model_copy(update={"url": moved(settings.blobs.url)}),
            "postgres": settings.postgres.model_copy(update={"url": database(settings.postgres.url, "darkroom")}),
        }
    )


@contextmanager
def serving_in(target: Settings) -> Generator[None]:
    """The embedded server in a folder that is being restored, if any database is to be in it."""
    backup = target.backup
    urls = (target.postgres.url, backup.prefect_database, backup.mlflow_database)
    names = [
        name
        for name, url in zip(("darkroom", "prefect", "mlflow"), urls, strict=True)
        if url.get_secret_value() == target.embedded_postgres_url(name)
    ]
    if not names:
        yield
        return
    with EmbeddedPostgres(target.data_folder / "postgres").serving() as server:
        server.create_databases(names)
        yield


def _write_secrets(target: Settings, secrets: dict[str, bytes], manifest: Manifest, identity: str) -> None:
    for name, content in secrets.items():
        file = target.data_folder / name
        # The names come from the backup, and a file that was tampered with could name any path.
        if not file.resolve().is_relative_to(target.data_folder.resolve()):
            raise BackupDamaged(f"The backup names a secret outside the data folder: {name}")
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # write_secret ends the line itself.
        write_secret(file, content.decode().rstrip("\n"))
    key_file = Path(target.backup.key_file)
    if not key_file.exists():
        sealed_keys.write_key_pair(key_file, sealed_keys.KeyPair(recipient=manifest.recipient, identity=identity))


def _copy_bytes(target: Settings, store: BackupStore, damaged: Mapping[str, str], done: Restored, say: Say) -> None:
    """damaged: a sentence for each blob of the backup that is left out, by SHA-256."""
    blobs = BlobStore(target.blobs)
    blobs.make_root()
    wanted = blobs_of(store, done.manifest)
    there = trusted(blobs, wanted)
    whole = {name: size for name, size in wanted.items() if name not in damaged}
    copied = copy_blobs(store.blobs, blobs, whole, there)
    if copied.lost:
        raise BackupDamaged(f"{copied.lost[0]}: the backup changed while it was restored. There is no data folder yet.")
    done.blobs = copied.amount.count
    say(f"blobs: {done.blobs:,}, {copied.amount.size:,} bytes")
    # A store that is taken over may have what the backup has not.
    missing = [name for name in damaged if name in wanted and there.get(name) != wanted[name]]
    for name in there.keys() & missing:
        blobs.delete(name)  # changed as well; `check` looks at sizes, and a put of the good bytes would leave it
    done.notes += left_out((damaged[name] for name in missing), "blobs that rows name: darkroom check names them")
    artifacts = artifacts_of(store, done.manifest)
    if target.backup.mlflow_artifacts:
        kept = [artifact for artifact in artifacts if artifact.sha256 not in damaged]
        done.artifacts = restore_artifacts(store.blobs, kept, target.backup.mlflow_artifacts)
        say(f"MLflow's artifacts: {done.artifacts:,}")
        lost = (artifact for artifact in artifacts if artifact.sha256 in damaged)
        done.notes += left_out((f"{each.path}: {damaged[each.sha256]}" for each in lost), "artifacts of MLflow")
    elif artifacts:
        done.notes.append(
            f"{len(artifacts):,} artifacts of MLflow are in the backup and were not restored: "
            "DARKROOM_BACKUP__MLFLOW_ARTIFACTS is not set"
        )


def left_out(faults: Iterable[str], kind: str) -> list[str]:
    """A note for each of the first damaged things that were not restored, and one that counts the others."""
    found = list(faults)
    notes = [f"left out, damaged in the backup: {fault}" for fault in found[:NAMED]]
    if len(found) > NAMED:
        notes.append(f"left out, damaged in the backup: {len(found) - NAMED:,} more {kind}")
    return notes
