"""@flow back-up: everything that a platform cannot make again, to another disk, while it works.

    MLflow's and Prefect's databases
    blobs may not be swept ─► a snapshot of Darkroom's database ─► its dump, and the list of blobs that it names
                              the blobs that the place does not have yet ─► blobs may be swept again
    MLflow's artifacts, sealed keys
    all of it is there ─► the manifest, which makes it a backup ─► older backups that no rule keeps go

A row's bytes are written before the row, so the blobs of a snapshot are all there once it is taken. A backup that dies
has no manifest: nobody takes it for one, what it has copied is not copied again, and it is removed two days later.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

import psycopg
from prefect import flow
from prefect.runtime import flow_run

from flows.runs.artifacts import leave_table
from flows.runs.flow_names import BACK_UP
from flows.runs.light_tracking import FAILED, note
from flows.runs.run_logs import run_logger
from flows.upkeep.backup import dumps, sealed_keys
from flows.upkeep.backup.backup_store import BackupStore, Say, check_outside
from flows.upkeep.backup.copies import copy_artifacts, copy_blobs, listing
from flows.upkeep.backup.finished_backup import FinishedBackup
from flows.upkeep.backup.manifest import (
    ARTIFACTS,
    BLOBS,
    DARKROOM,
    FORMAT,
    IDENTITY,
    KEYS,
    MLFLOW,
    PREFECT,
    Amount,
    Artifact,
    BackupFile,
    Manifest,
    artifact_lines,
    blob_lines,
)
from flows.upkeep.backup.old_backups import drop_old
from flows.upkeep.backup.snapshots import snapshot, without_sweep
from storage.errors import BackupFailed, DarkroomError, DiskFull, InUse
from storage.postgres.upkeep import last_backup
from storage.postgres.upkeep.last_backup import LastBackup
from storage.settings import load_settings, variable_of
from storage.stores import Stores, open_stores

MADE_AGAIN = ("--exclude-table=search_build_[0-9]*", "--exclude-table-data=search_windows")
"""Of Darkroom's database what is made again from the rest: search indexes, and ranked ids for ten minutes."""
_log = partial(run_logger, "darkroom.backup")


@flow(name=BACK_UP)
def back_up() -> str:
    """Back everything up to DARKROOM_BACKUP__DESTINATION; returns the backup's name, nothing when none is set."""
    settings = load_settings()
    if not settings.backup.destination:
        _log().info("no backup: DARKROOM_BACKUP__DESTINATION is not set")
        return ""
    began = str(flow_run.name or datetime.now(UTC))
    with open_stores(settings) as stores:
        try:
            made = back_up_to(stores, settings.backup.destination, _log().info)
        except DarkroomError:
            note(settings, BACK_UP, began, {}, status=FAILED)
            raise
    note(settings, BACK_UP, began, made.metrics(), params={"backup": made.manifest.name, "place": made.place})
    leave_table(BACK_UP, [{"metric": name, "value": value} for name, value in made.metrics().items()])
    if complaint := made.complaint():
        raise BackupFailed(complaint)
    return made.manifest.name


def back_up_to(stores: Stores, place: str, say: Say) -> FinishedBackup:
    """Back everything up to a folder or URL, one backup at a time, and remove older ones that no rule keeps.

    What goes wrong with the older ones takes nothing from this one: it stands in `dropped.faults`.

    Raises BackupRefused, InUse, BackupFailed, DiskFull, StoreUnavailable; then there is no backup of that time.
    """
    store, settings = BackupStore(place), stores.settings
    check_outside(store, settings.data_folder)
    # Before any byte is written: a backup whose keys could not be sealed would be found out hours later.
    pair = sealed_keys.read_key_pair(Path(settings.backup.key_file))
    store.check_reachable()
    with stores.database.session_lock(BACK_UP) as held:
        if not held:
            raise InUse("Another backup of this platform is being made. Wait for it.")
        making = _Making(stores, store, say)
        made = making.make(pair)
        # Noted before older ones are tended: this backup is one, whatever is wrong with those.
        newest = LastBackup(name=made.manifest.name, place=made.place, finished_at=made.manifest.finished_at)
        stores.database.run(last_backup.finished(newest))
        with making.step("retention"):
            try:
                made.dropped = drop_old(store, settings.backup, made.manifest.name)
            except DarkroomError as error:
                made.dropped.faults.append(str(error))
        return made


@dataclass(frozen=True)
class _Moment:
    """Of the moment of Darkroom's dump: the sizes of the blobs that rows name by their SHA-256, the schema's
    migrations, the server's version."""

    blobs: dict[str, int]
    migrations: list[str]
    server_version: int


class _Making:
    """One backup while it is made."""

    def __init__(self, stores: Stores, store: BackupStore, say: Say) -> None:
        self._stores, self._settings, self._store, self._say = stores, stores.settings, store, say
        self._started = datetime.now(UTC)
        # Names sort by time, also within a second: the newest backup is the last name.
        within = f"{self._started.microsecond:05x}{secrets.token_hex(2)[:3]}"
        self._name = f"{self._started:%Y-%m-%dT%H-%M-%SZ}-{within}"
        self._files: list[BackupFile] = []
        self._dumps: dict[str, str] = {}
        self._seconds: dict[str, float] = {}
        self._without = [
            "bytes of unfinished uploads of model files: their senders begin again",
            "search indexes, Valkey and caches: they are made again",
        ]

    @contextmanager
    def step(self, name: str) -> Generator[None]:
        """Count the seconds of a step."""
        began = time.monotonic()
        yield
        self._seconds[name] = time.monotonic() - began

    def make(self, pair: sealed_keys.KeyPair) -> FinishedBackup:
        """The whole backup, its manifest last.

        Raises BackupFailed when Postgres is lost in the middle, DiskFull when the place is full."""
        try:
            return self._make(pair)
        except psycopg.Error as error:
            raise BackupFailed(
                f"Postgres was lost during the backup ({type(error).__name__}). Back up again."
            ) from error
        except DiskFull as error:
            raise DiskFull(
                f"{self._store.url} has no room left for a backup. Free some, then back up again."
            ) from error

    def _make(self, pair: sealed_keys.KeyPair) -> FinishedBackup:
        there = listing(self._store.blobs)
        # From before the snapshot until the blobs are copied: in between, a sweep could delete what the dump names.
        with without_sweep(self._stores.database):
            with self.step("dump"):
                self._dump_other(MLFLOW, self._settings.backup.mlflow_database.get_secret_value())
                self._dump_other(PREFECT, self._settings.backup.prefect_database.get_secret_value())
                moment = self._dump_darkroom()
            with self.step("blobs"):
                copied = copy_blobs(self._stores.blobs, self._store.blobs, moment.blobs, there)
        known = there | copied.sizes
        # What the place holds in another size is damaged, and was not to be had again.
        blobs = {
            sha256: known[sha256]
            for sha256, size in moment.blobs.items()
            if sha256 in copied.sizes or there.get(sha256) == size
        }
        self._write(BLOBS, b"".join(blob_lines(blobs.items())))
        new, whole = copied.amount, Amount(count=len(blobs), size=sum(blobs.values()))
        self._say(f"blobs: {new.count:,} new of {whole.count:,}, {new.size:,} new bytes of {whole.size:,}")
        with self.step("artifacts"):
            artifacts, copied_artifacts = self._copy_artifacts(known)
        self._write(KEYS, sealed_keys.seal(sealed_keys.gather(self._settings), pair.recipient))
        # With the backup, sealed: on a new machine the passphrase alone must suffice.
        self._write(IDENTITY, pair.identity.encode())
        with self.step("finish"):
            # Listed once more: another platform that backs up to this place would remove what only this backup names.
            self._check_there(blobs, artifacts)
            manifest = Manifest(
                format=FORMAT,
                name=self._name,
                started_at=self._started,
                finished_at=datetime.now(UTC),
                versions={package: version(package) for package in (DARKROOM, PREFECT, MLFLOW)},
                postgres=moment.server_version,
                migrations=moment.migrations,
                dumps=self._dumps,
                files=self._files,
                blobs=whole,
                artifacts=Amount(count=len(artifacts), size=sum(artifact.size for artifact in artifacts)),
                lost=copied.lost,
                without=self._without,
                recipient=pair.recipient,
            )
            self._store.finish(manifest)
        return FinishedBackup(
            manifest=manifest,
            place=self._store.url,
            seconds=self._seconds,
            copied=new,
            copied_artifacts=copied_artifacts,
        )

    def _dump_other(self, name: str, url: str) -> None:
        if not url:
            self._without.append(f"{name}'s database: {variable_of('backup', f'{name}_database')} is not set")
            return
        with self._store.writing(self._name, f"{name}.dump") as sink:
            dumps.dump(self._settings.backup, url, sink.write)
        self._dumped(name, sink.file(f"{name}.dump"))

    def _dump_darkroom(self) -> _Moment:
        """The dump, and what else is of the same moment."""
        url = self._settings.postgres.url.get_secret_value()
        with snapshot(self._stores.database) as moment:
            with self._store.writing(self._name, f"{DARKROOM}.dump") as sink:
                dumps.dump(self._settings.backup, url, sink.write, snapshot=moment.id, without=MADE_AGAIN)
            self._dumped(DARKROOM, sink.file(f"{DARKROOM}.dump"))
            return _Moment(dict(moment.blobs()), moment.migrations(), moment.server_version())

    def _dumped(self, database: str, file: BackupFile) -> None:
        self._files.append(file)
        self._dumps[database] = file.name
        self._say(f"{file.name}: {file.size:,} bytes")

    def _copy_artifacts(self, there: dict[str, int]) -> tuple[list[Artifact], Amount]:
        url = self._settings.backup.mlflow_artifacts
        if not url:
            self._without.append("mlflow's artifacts: DARKROOM_BACKUP__MLFLOW_ARTIFACTS is not set")
            return [], Amount(count=0, size=0)
        artifacts, copied = copy_artifacts(url, self._store.blobs, there)
        self._write(ARTIFACTS, b"".join(artifact_lines(artifacts)))
        self._say(f"MLflow's artifacts: {len(artifacts):,}, {copied.amount.size:,} new bytes")
        return artifacts, copied.amount

    def _write(self, name: str, content: bytes) -> None:
        with self._store.writing(self._name, name) as sink:
            sink.write(content)
        self._files.append(sink.file(name))

    def _check_there(self, blobs: dict[str, int], artifacts: list[Artifact]) -> None:
        """Raises BackupFailed when somebody has removed from the place what this backup depends on."""
        there = listing(self._store.blobs)
        wanted = blobs | {artifact.sha256: artifact.size for artifact in artifacts}
        missing = [sha256 for sha256, size in wanted.items() if there.get(sha256) != size]
        if missing:
            raise BackupFailed(
                f"{len(missing)} blobs went from {self._store.url} or changed during the backup, {missing[0]} among "
                "them. "
                "Does another platform back up to this place? Give each its own, and back up again."
            )
