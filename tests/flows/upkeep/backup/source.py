"""A small platform to back up: real rows with real bytes, secrets, artifacts and a second database, no processes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
import pyrage
from msgspec.structs import replace
from pydantic import SecretStr

from deployments.local.seed import with_own_keys
from deployments.local.servers.postgres import EmbeddedPostgres
from flows.indexing.new_builds import ensure_live_builds
from flows.upkeep.backup import sealed_keys
from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.finished_backup import FinishedBackup
from flows.upkeep.backup.manifest import Manifest
from flows.upkeep.backup.verification import check_whole
from storage.backup_settings import BackupSettings
from storage.blobs.store import BlobStore
from storage.errors import DarkroomError
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.jobs import data_sets, submissions
from storage.records.catalog.catalog import ModelFields, VersionFields
from storage.records.catalog.vocabulary import ModelType
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.jobs import Job
from storage.records.jobs.training import TrainingRequest
from storage.secret_files import write_secret
from storage.settings import PostgresSettings, RedisSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests.conftest import fresh_database
from tests.storage.makers import a_file, an_account

PASSPHRASE = "correct horse battery staple"
OWNER_KEY = "drk_0000_the-owner's-own"


@dataclass
class Source:
    """A platform's stores, and the place that it is backed up to."""

    stores: Stores
    place: Path
    key_pair: sealed_keys.KeyPair
    passphrase_file: Path

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self.stores.settings

    def back_up(self) -> FinishedBackup:
        """A backup now."""
        return back_up_to(self.stores, str(self.place), lambda _: None)

    def put(self, content: bytes) -> DataSetImage:
        """Stored bytes, as a photo."""
        blob = self.stores.blobs.put(content)
        return DataSetImage(position=0, name="0.png", sha256=blob.sha256, size=blob.size, width=64, height=64)

    def add_job(self, name: str) -> Job:
        """A submitted job on a photo of its own."""
        database = self.stores.database
        owner = an_account(database)
        data_set = database.run(data_sets.create(owner, name, [self.put(name.encode() * 100)]))
        request = TrainingRequest(data_set_id=data_set.id, class_word="mug")
        job, _ = database.run(submissions.submit_training(request, owner, self.settings, seed=7))
        return job

    def add_model(self, name: str) -> int:
        """A listed model whose weights are stored; returns its id."""
        database = self.stores.database
        blob = self.stores.blobs.put(f"weights of {name}".encode() * 50)
        model = database.run(models.create(an_account(database), ModelFields(name=name, type=ModelType.LORA)))
        version = database.run(versions.create(model, VersionFields(name="v1", base_model="SD 1.5")))
        database.run(catalog.add_files(version.id, [replace(a_file(blob.sha256), size=blob.size)]))
        database.run(models.publish(model))
        return model.id

    def all_bytes(self) -> dict[str, bytes]:
        """Every file of the place, by its path there."""
        return {
            str(file.relative_to(self.place)): file.read_bytes()
            for file in sorted(self.place.rglob("*"))
            if file.is_file()
        }


def bytes_of(store: BlobStore) -> dict[str, str]:
    """What each blob's bytes hash to, by its name."""
    return {blob.sha256: hashlib.sha256(store.read(blob.sha256)).hexdigest() for blob in store.list()}


_decrypt = pyrage.passphrase.decrypt


@cache
def a_key_pair() -> sealed_keys.KeyPair:
    """A key pair under the passphrase: one a process, since scrypt takes a second of a core, on purpose."""
    return sealed_keys.make_key_pair(PASSPHRASE)


@cache
def opened(sealed: bytes, passphrase: str) -> bytes:
    """What a passphrase opens, computed once. One that does not open it raises each time."""
    return _decrypt(sealed, passphrase)


@contextmanager
def source(server: EmbeddedPostgres, template: str, folder: Path, **backup: Any) -> Iterator[Source]:
    """A platform with two models, two jobs, an artifact and a database that stands for MLflow's."""
    data_folder = folder / "data"
    artifacts = data_folder / "mlflow" / "0" / "a run" / "artifacts"
    artifacts.mkdir(parents=True)
    (artifacts / "metrics.json").write_text('{"loss": 0.5}')
    passphrase_file = folder / "passphrase"
    passphrase_file.write_text(PASSPHRASE + "\n")
    with fresh_database(server, template) as url, fresh_database(server, "template1") as mlflow:
        with psycopg.connect(mlflow, autocommit=True) as connection:
            connection.execute("create table runs (id serial primary key, name text)")
            connection.execute("insert into runs (name) values ('first')")
        settings = with_own_keys(
            Settings(
                data_folder=data_folder,
                postgres=PostgresSettings(url=SecretStr(url)),
                redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/2")),
                search=SearchSettings(encoder_folder="off"),
                backup=BackupSettings(mlflow_database=SecretStr(mlflow), prefect_database=SecretStr(mlflow), **backup),
            )
        )
        write_secret(settings.owner_key_file, OWNER_KEY)
        pair = a_key_pair()
        sealed_keys.write_key_pair(Path(settings.backup.key_file), pair)
        with open_stores(settings) as stores, patch.object(pyrage.passphrase, "decrypt", opened):
            made = Source(stores, folder / "backups", pair, passphrase_file)
            for name in ("lantern", "castle"):
                made.add_model(name)
                made.add_job(f"photos of a {name}")
            ensure_live_builds(stores)
            yield made


def newest(place: Path) -> tuple[BackupStore, Manifest]:
    """The backups of a place, and the newest one's manifest."""
    store = BackupStore(str(place))
    return store, store.manifest(store.newest())


def complaint(place: Path) -> str:
    """What verify says of the newest backup; nothing when it is whole."""
    store = BackupStore(str(place))
    try:
        check_whole(store, store.newest())
    except DarkroomError as error:
        return str(error)
    return ""


def say(_line: str) -> None:
    """Nobody reads it."""
