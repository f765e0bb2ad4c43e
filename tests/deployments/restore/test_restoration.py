"""A restored platform has everything, returns no number out twice and takes nothing of the past for the present."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from deployments.cli import app
from deployments.commands.upkeep.restore import report
from deployments.local.servers.postgres import EmbeddedPostgres
from deployments.restore import restoration, restored_databases
from deployments.restore.database_mark import finish
from deployments.restore.folder_mark import BESIDE, MARK, take_mark
from deployments.restore.restoration import Choices, Restored, folder_beside, refuse_occupied, restore
from flows.indexing.builds import index_faults
from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.copies import listing
from flows.upkeep.backup.manifest import ARTIFACTS, BLOBS, KEYS, MLFLOW
from flows.upkeep.backup.verification import artifacts_of, blobs_of
from flows.upkeep.blob_sweep import faulty_blobs
from storage.blobs.store import BlobStore
from storage.errors import BackupDamaged, BackupRefused, SealBroken, StoreUnavailable
from storage.postgres.connection import Query
from storage.postgres.events import changes
from storage.postgres.jobs import jobs
from storage.postgres.migrating import HalfRestored, migrate
from storage.postgres.upkeep import restored
from storage.postgres.upkeep.restored import JUMP
from storage.records.jobs.jobs import Job, JobState
from storage.secret_files import write_secret
from storage.settings import BlobSettings, RedisSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests import s3_server
from tests.conftest import fresh_database
from tests.flows.upkeep.backup.source import OWNER_KEY, PASSPHRASE, Source, bytes_of, source


@dataclass
class Fresh:
    """A restored platform on a server of its own, and what was backed up."""

    old: Source
    jobs: dict[str, Job]
    last: dict[str, int]
    done: Restored
    stores: Stores
    said: list[str]


def scalar(url: str, statement: str) -> list[object]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute(statement)]  # pyright: ignore[reportArgumentType, reportCallIssue]


def sequences(stores: Stores) -> dict[str, int]:
    """Every sequence in the catalogue of Postgres, and the last number that it has given out."""
    statement = "select sequencename as name, coalesce(last_value, 0) as last from pg_sequences"
    return stores.database.run(Query(statement, {}, lambda rows: {row["name"]: row["last"] for row in rows}))


def fresh_settings(folder: Path) -> Settings:
    """Of another machine: nothing but a data folder."""
    return Settings(
        data_folder=folder,
        redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/2")),
        search=SearchSettings(encoder_folder="off"),
    )


@pytest.fixture(scope="module")
def old(
    postgres_server: EmbeddedPostgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Source]:
    """What was backed up, from a server that has seen many transactions."""
    with psycopg.connect(postgres_server.url("postgres"), autocommit=True) as connection:
        # Each block with a handler that writes takes a transaction number of its own.
        connection.execute(
            "create table if not exists spent (n int); do $$ begin for n in 1 .. 20000 loop begin"
            " insert into spent values (n); exception when division_by_zero then null; end; end loop; end $$"
        )
    with source(postgres_server, migrated_template, tmp_path_factory.mktemp("old")) as made:
        for file in made.settings.previous_key_files().values():
            write_secret(file, f"the {file.name} before")
        yield made


@pytest.fixture(scope="module")
def fresh(old: Source, short_folder: Path) -> Iterator[Fresh]:
    database = old.stores.database
    waiting, running, cancelling = (old.add_job(name) for name in ("waiting", "running", "cancelling"))
    database.run(jobs.claim(running.id, 1, None))
    database.run(jobs.claim(cancelling.id, 1, None))
    database.run(jobs.cancel(cancelling.id, cancelling.account_id))
    old.back_up()
    last = sequences(old.stores)
    settings, said = fresh_settings(short_folder / "restored"), list[str]()
    done = restore(settings, str(old.place), lambda: PASSPHRASE, said.append, Choices(hold_notifications=True))
    with (
        EmbeddedPostgres(settings.data_folder / "postgres", durable=False).serving(),
        open_stores(fresh_settings(settings.data_folder)) as stores,
    ):
        yield Fresh(old, {"waiting": waiting, "running": running, "cancelling": cancelling}, last, done, stores, said)


def test_cached_responses_are_kept_again_after_a_restore_into_a_new_cluster(fresh: Fresh) -> None:
    database = fresh.stores.database
    first = database.run(changes.since(None, 1000))
    second = database.run(changes.since(first.snapshot, 1000))
    assert second.events == ()


def test_no_transaction_number_is_of_the_old_cluster(fresh: Fresh) -> None:
    columns = fresh.stores.database.run(
        Query(
            "select table_name, column_name from information_schema.columns"
            " where udt_name = 'xid8' and table_schema = 'public'",
            {},
            lambda rows: [(row["table_name"], row["column_name"]) for row in rows],
        )
    )
    assert len(columns) >= 4
    for table, column in columns:
        statement = f"select count(*) as old from {table} where {column} >= pg_current_xact_id()"
        assert fresh.stores.database.run(Query(statement, {}, lambda rows: rows[0]["old"])) == 0, f"{table}.{column}"


def test_every_sequence_of_the_catalogue_goes_on_above_what_may_have_been_given_out(fresh: Fresh) -> None:
    now = sequences(fresh.stores)
    assert now.keys() == fresh.last.keys()
    assert len(now) > 15
    assert {name: number for name, number in now.items() if number < fresh.last[name] + JUMP} == {}
    assert fresh.done.reopened.sequences.keys() == {f"public.{name}" for name in now}
    [newest] = scalar(
        fresh.stores.settings.embedded_postgres_url(MLFLOW), "insert into runs (name) values ('x') returning id"
    )
    assert newest == 2 + JUMP


def test_every_row_is_back_with_its_bytes_artifacts_and_secrets(fresh: Fresh) -> None:
    old, new = fresh.old.stores, fresh.stores
    for table in ("models", "model_versions", "version_files", "data_set_images", "accounts"):
        statement = f"select count(*) as rows, sum(hashtextextended(t.id::text, 0)) as ids from {table} t"
        statement = statement.replace("t.id::text", "t.sha256") if table in ("data_set_images",) else statement
        assert [store.database.run(Query(statement, {}, lambda rows: dict(rows[0]))) for store in (old, new)][1][
            "rows"
        ] > 0
        assert old.database.run(Query(statement, {}, list)) == new.database.run(Query(statement, {}, list)), table
    named = bytes_of(new.blobs)
    assert len(named) == fresh.done.blobs == fresh.done.manifest.blobs.count > 5
    assert all(name == digest for name, digest in named.items())
    [artifact] = (fresh.stores.settings.data_folder / "mlflow").rglob("metrics.json")
    assert artifact.read_text() == '{"loss": 0.5}'
    for file in (*new.settings.backed_up_secrets, Path(new.settings.backup.key_file)):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
    assert new.settings.owner_key_file.read_text().strip() == OWNER_KEY
    assert new.settings.api.signing_key == old.settings.api.signing_key
    assert new.settings.notifications.sealing_key == old.settings.notifications.sealing_key
    for file in new.settings.previous_key_files().values():
        assert file.read_text() == f"the {file.name} before\n"


def test_unfinished_jobs_have_another_attempt_and_cancelling_ones_have_ended(fresh: Fresh) -> None:
    found = {name: fresh.stores.database.run(jobs.get(job.id)) for name, job in fresh.jobs.items()}
    assert {name: (job.state, job.attempt) for name, job in found.items()} == {
        "waiting": (JobState.SUBMITTED, 2),
        "running": (JobState.SUBMITTED, 2),
        "cancelling": (JobState.CANCELLED, 1),
    }
    asked = "select count(*) as rows from outbox where kind = 'job.submitted' and done_at is null and subject = %(job)s"
    for name in ("waiting", "running"):
        parameters = {"job": f"job:{found[name].id}"}
        again = asked + " and payload ->> 'attempt' = '2'"
        assert fresh.stores.database.run(Query(again, parameters, lambda rows: rows[0]["rows"])) == 1


def test_searches_read_an_index_that_is_the_rows(fresh: Fresh) -> None:
    assert index_faults(fresh.stores) == []
    statement = "select count(*) as builds, min(id) as first from search_builds where state = 'live'"
    [row] = fresh.stores.database.run(Query(statement, {}, list))
    assert row["builds"] == 3
    assert row["first"] > JUMP
    [documents] = scalar(
        fresh.stores.settings.postgres.url.get_secret_value(), f"select count(*) from search_build_{row['first']}"
    )
    assert documents == 2


def test_nothing_leaves_the_platform_until_a_channel_is_resumed(fresh: Fresh) -> None:
    channels = fresh.stores.database.run(Query("select channel from channel_pauses", {}, list))
    assert sorted(row["channel"] for row in channels) == ["chat", "email", "push", "webhook"]
    assert any("they are held" in line for line in report(fresh.done))


def test_a_restore_leaves_no_folder_but_the_data_folder(fresh: Fresh) -> None:
    folder = fresh.stores.settings.data_folder
    assert not folder.with_name(folder.name + BESIDE).exists()
    assert {file.name for file in folder.iterdir()} == {
        *(
            "blobs",
            "mlflow",
            "postgres",
            "postgres.log",
            "signing.key",
            "sealing.key",
            "signing.previous.key",
            "sealing.previous.key",
            "owner.key",
            "backup.key",
            "prefect.auth",
            "mlflow.auth",
            "valkey.key",
            "valkey-darkroom.key",
        )
    }
    with pytest.raises(BackupRefused, match="is not empty"):
        restore(fresh.stores.settings, str(fresh.old.place), lambda: PASSPHRASE, fresh.said.append)


def test_a_restore_makes_the_bucket_that_is_not_there(old: Source, fresh: Fresh, short_folder: Path) -> None:
    settings = fresh_settings(short_folder / "s3")
    with s3_server.serving():
        settings.blobs = BlobSettings(url="s3://not-there-yet/blobs")
        done = restore(settings, str(old.place), lambda: PASSPHRASE, fresh.said.append)
        assert len(listing(BlobStore(settings.blobs))) == done.blobs > 0


def refused(old: Source, settings: Settings, passphrase: str = PASSPHRASE) -> None:
    restore(settings, str(old.place), lambda: passphrase, lambda _: None)


def test_a_wrong_passphrase_is_refused_before_anything_is_written(old: Source, fresh: Fresh, tmp_path: Path) -> None:
    with pytest.raises(SealBroken, match="does not open this backup's keys"):
        refused(old, fresh_settings(tmp_path / "data"), "incorrect horse battery")
    assert list(tmp_path.iterdir()) == []


def test_a_database_with_tables_is_not_restored_into(old: Source, fresh: Fresh, tmp_path: Path) -> None:
    settings = fresh_settings(tmp_path / "data")
    settings.postgres = old.settings.postgres
    with pytest.raises(BackupRefused, match=r"darkroom's database has \d+ tables"):
        refused(old, settings)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def own_servers(postgres_server: EmbeddedPostgres, tmp_path: Path) -> Iterator[Settings]:
    """The settings of a platform whose databases are outside its data folder, and empty."""
    settings = fresh_settings(tmp_path / "data")
    with (
        fresh_database(postgres_server, "template1") as darkroom,
        fresh_database(postgres_server, "template1") as prefect,
        fresh_database(postgres_server, "template1") as mlflow,
    ):
        settings.postgres = settings.postgres.model_copy(update={"url": SecretStr(darkroom)})
        settings.backup.prefect_database, settings.backup.mlflow_database = SecretStr(prefect), SecretStr(mlflow)
        yield settings


class Died(BaseException):
    """A restore was killed."""


# With the second dump one is whole and one is missing, with the index every dump is whole; the last undoes the marks.
@pytest.mark.parametrize(
    "step",
    [
        "dumps.restore twice",
        "rebuild_index",
        "unmark",
        *(pytest.param(step, marks=pytest.mark.soak) for step in ("dumps.restore", "migrate")),
    ],
)
def test_a_restore_into_own_servers_that_died_is_repeated(
    fresh: Fresh, own_servers: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, passed = restoration if step == "unmark" else restored_databases, iter([step.endswith("twice"), False])
    name, url = step.split(" ")[0], own_servers.postgres.url.get_secret_value()
    work = attrgetter(name)(place)

    def die(*arguments: Any, **options: Any) -> Any:
        if not next(passed):
            raise Died
        return work(*arguments, **options)

    with monkeypatch.context() as patched, pytest.raises(Died):
        patched.setattr(f"{place.__name__}.{name}", die)
        refused(fresh.old, own_servers)
    with pytest.raises(HalfRestored, match="darkroom restore"):
        migrate(url)
    if step == "unmark":
        finish(own_servers)
    else:
        refused(fresh.old, own_servers)
    assert migrate(url) == []
    models = "select count(*), sum(id) from models"
    for database, statement in (
        (url, models),
        (own_servers.backup.mlflow_database.get_secret_value(), "select name from runs"),
    ):
        original = fresh.old.settings.postgres.url if database == url else fresh.old.settings.backup.mlflow_database
        assert scalar(database, statement) == scalar(original.get_secret_value(), statement)
        assert scalar(database, "select to_regclass('public.darkroom_restoring') is null") == [True]
    assert not (own_servers.data_folder / MARK).exists()


def test_a_search_engine_that_does_not_respond_is_found_before_anything_is_written(
    fresh: Fresh, own_servers: Settings
) -> None:
    own_servers.search.elasticsearch_url = SecretStr("http://127.0.0.1:1")
    with pytest.raises(StoreUnavailable):
        refused(fresh.old, own_servers)
    assert scalar(
        own_servers.postgres.url.get_secret_value(), "select count(*) from pg_tables where schemaname = 'public'"
    ) == [0]
    assert not own_servers.data_folder.with_name(f"data{BESIDE}").exists()


def test_changed_bytes_in_the_target_are_replaced(fresh: Fresh, tmp_path: Path) -> None:
    blobs = tmp_path / "elsewhere"
    shutil.copytree(fresh.stores.settings.data_folder / "blobs", blobs)
    changed = max(blobs.rglob("?" * 64), key=lambda file: file.stat().st_size)
    changed.write_bytes(bytes(changed.stat().st_size))
    settings = fresh_settings(tmp_path / "data")
    settings.blobs.url = blobs.as_uri()
    store, done = BackupStore(str(fresh.old.place)), replace(fresh.done, notes=[])
    restoration._copy_bytes(settings, store, {}, done, lambda _: None)
    assert done.blobs == 1
    assert all(name == digest for name, digest in bytes_of(BlobStore(settings.blobs)).items())


def test_a_blob_store_with_blobs_is_restored_into_only_to_take_it_over(
    old: Source, fresh: Fresh, tmp_path: Path
) -> None:
    settings = fresh_settings(tmp_path / "data")
    settings.blobs.url = (tmp_path / "blobs").as_uri()
    newer = BlobStore(settings.blobs).put(b"made after the backup")
    with pytest.raises(BackupRefused, match="DARKROOM_BLOBS__URL names a blob store that is not empty"):
        refused(old, settings)
    assert [blob.sha256 for blob in BlobStore(settings.blobs).list()] == [newer.sha256]
    assert not list(tmp_path.glob("data*"))
    with pytest.raises(SealBroken, match="does not open"):
        restore(settings, str(old.place), lambda: "incorrect", lambda _: None, Choices(take_over=True))


def test_a_folder_that_is_in_the_way_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / f"data{BESIDE}").mkdir()
    (tmp_path / f"data{BESIDE}" / "precious").write_text("mine")
    with pytest.raises(BackupRefused, match="in the way"), folder_beside(tmp_path / "data"):
        raise AssertionError("it was taken")
    assert (tmp_path / f"data{BESIDE}" / "precious").read_text() == "mine"


def test_a_restore_that_dies_leaves_no_data_folder_and_does_not_stop_the_next(tmp_path: Path) -> None:
    def die() -> None:
        with folder_beside(tmp_path / "data") as folder:
            (folder / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die()
    assert not (tmp_path / "data").exists()
    with folder_beside(tmp_path / "data") as folder:
        (folder / "whole").write_text("whole")
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["whole"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_mount_point_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match=r"mount point.*/proc/darkroom"):
        refuse_occupied(Path("/proc"))
    refuse_occupied(tmp_path)


def test_a_restore_that_dies_last_of_all_leaves_a_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(_: Path) -> None:
        raise KeyboardInterrupt

    def restore_and_die() -> None:
        with folder_beside(tmp_path / "data") as folder:
            (folder / "whole").write_text("whole")

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(restoration, "take_mark", die)
        restore_and_die()
    with pytest.raises(BackupRefused, match="restored already, whole"):
        refuse_occupied(tmp_path / "data")
    take_mark(tmp_path / "data")
    assert [file.name for file in (tmp_path / "data").iterdir()] == ["whole"]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_name_that_cannot_be_taken_leaves_what_the_next_restore_removes(tmp_path: Path) -> None:
    def restore_onto_what_came_meanwhile() -> None:
        with folder_beside(tmp_path / "data"):
            (tmp_path / "data").mkdir()
            (tmp_path / "data" / "in the way").touch()

    with pytest.raises(OSError, match="not empty"):
        restore_onto_what_came_meanwhile()
    shutil.rmtree(tmp_path / "data")
    with pytest.raises(BackupRefused, match="half restored"):
        take_mark(tmp_path / f"data{BESIDE}")
    with folder_beside(tmp_path / "data"):
        pass
    assert [file.name for file in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def rotting(fresh: Fresh, tmp_path: Path) -> BackupStore:
    """A copy of a place of backups, to be damaged."""
    return BackupStore(str(shutil.copytree(fresh.old.place, tmp_path / "rotting")))


def damage(store: BackupStore, sha256: str, how: str) -> str:
    """One bit of a blob flips, or the blob is lost; returns the sentence that names it."""
    assert store.local is not None
    file = store.local / "blobs" / sha256[:2] / sha256
    if how == "missing":
        file.unlink()
        return f"blob {sha256} is missing"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    return f"the bytes of blob {sha256} have changed"


@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_backup_with_a_damaged_blob_is_refused_and_the_way_round_it_named(
    rotting: BackupStore, tmp_path: Path, how: str
) -> None:
    name = rotting.newest()
    fault = damage(rotting, next(iter(blobs_of(rotting, rotting.manifest(name)))), how)
    with pytest.raises(BackupDamaged) as refusal:
        restore(fresh_settings(tmp_path / "data"), rotting.url, lambda: PASSPHRASE, lambda _: None)
    assert fault in str(refusal.value)
    assert "another place of backups" in str(refusal.value)
    assert str(refusal.value).endswith(f"darkroom restore {rotting.url} --name {name} --without-damaged")
    assert [file.name for file in tmp_path.iterdir()] == ["rotting"]


def test_all_but_the_damaged_blobs_is_restored_and_they_are_named(
    old: Source, rotting: BackupStore, short_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = rotting.manifest(rotting.newest())
    wanted = blobs_of(rotting, manifest)
    changed, missing, *whole = sorted(wanted)
    [artifact] = artifacts_of(rotting, manifest)
    faults = [damage(rotting, changed, "changed"), damage(rotting, missing, "missing")]
    faults.append(f"{artifact.path}: {damage(rotting, artifact.sha256, 'changed')}")
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(short_folder / "without"))
    options = ["--passphrase-file", str(old.passphrase_file), "--without-damaged"]
    done = CliRunner().invoke(app, ["restore", rotting.url, *options])
    assert done.exit_code == 0, done.output
    assert "3 blobs of the backup are missing or damaged" in done.output
    named = [line for line in done.output.splitlines() if line.startswith("left out, damaged in the backup: ")]
    assert named == [f"left out, damaged in the backup: {fault}" for fault in faults]
    settings = fresh_settings(short_folder / "without")
    with (
        EmbeddedPostgres(settings.data_folder / "postgres", durable=False).serving(),
        open_stores(settings) as stores,
    ):
        assert bytes_of(stores.blobs) == {name: name for name in whole}
        gone = [fault.split(": ")[0] for fault in faulty_blobs(stores)]
        assert gone == [f"blob {name} is named by a row but gone" for name in (changed, missing)]
        assert index_faults(stores) == []
        for table in ("models", "version_files", "data_set_images", "jobs", "accounts"):
            count = Query(f"select count(*) as rows from {table}", {}, lambda rows: rows[0]["rows"])
            assert stores.database.run(count) == old.stores.database.run(count) > 0, table
        assert stores.settings.owner_key_file.read_text().strip() == OWNER_KEY


@pytest.mark.parametrize("file", ["darkroom.dump", BLOBS, ARTIFACTS, KEYS])
def test_a_damaged_file_of_the_backup_is_refused_also_without_the_damaged_blobs(
    rotting: BackupStore, tmp_path: Path, file: str
) -> None:
    assert rotting.local is not None
    path = rotting.local / "backups" / rotting.newest() / file
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    choices = Choices(without_damaged=True)
    with pytest.raises(BackupDamaged, match=f"the bytes of '{file}' have changed"):
        restore(fresh_settings(tmp_path / "data"), rotting.url, lambda: PASSPHRASE, lambda _: None, choices)
    assert [each.name for each in tmp_path.iterdir()] == ["rotting"]


def test_a_blob_store_that_is_taken_over_keeps_what_the_backup_lacks_and_no_changed_bytes(
    old: Source, rotting: BackupStore, tmp_path: Path
) -> None:
    manifest = rotting.manifest(rotting.newest())
    settings = fresh_settings(tmp_path / "data")
    blobs = BlobStore(settings.blobs)
    kept, rotten, *rest = sorted(blobs_of(rotting, manifest))
    for name in (kept, rotten):
        blobs.put(old.stores.blobs.read(name))
    here = BackupStore(str(tmp_path / "data"))  # its blobs lie in it as those of a place do
    damage(here, rotten, "changed")
    damaged = {name: damage(rotting, name, "missing") for name in (kept, rotten)}
    done = Restored(manifest, restored.nothing(), 0, 0, [])
    restoration._copy_bytes(settings, rotting, damaged, done, lambda _: None)
    assert bytes_of(blobs) == {name: name for name in (kept, *rest)}
    assert done.notes == [f"left out, damaged in the backup: {damaged[rotten]}"]


def test_many_damaged_blobs_are_named_at_first_and_then_counted() -> None:
    notes = restoration.left_out((f"blob {n} is missing" for n in range(1, 1024)), "blobs")
    assert len(notes) == 21
    assert notes[19:] == [
        "left out, damaged in the backup: blob 20 is missing",
        "left out, damaged in the backup: 1,003 more blobs",
    ]
