"""A backup holds everything and only once, is finished or none, and tells when a bit of it is not what it was."""

from __future__ import annotations

import errno
import inspect
import os
import shutil
import stat
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pyrage
import pytest
from fsspec.implementations.local import LocalFileSystem
from psycopg.conninfo import make_conninfo
from pydantic import SecretStr, ValidationError
from typer.testing import CliRunner

from deployments.cli import app
from deployments.local.seed import with_own_keys
from deployments.local.servers.postgres import EmbeddedPostgres
from flows.runs.flow_names import BACK_UP
from flows.upkeep.backup import backup, dumps, sealed_keys
from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.copies import copy_artifacts
from flows.upkeep.backup.manifest import BLOBS, FORMAT, IDENTITY, KEYS, Manifest, encode, is_manifest
from flows.upkeep.backup.old_backups import YOUNG_SECONDS, drop_old, kept
from flows.upkeep.backup.verification import check_known, check_whole
from storage.backup_settings import BackupSettings
from storage.blobs.store import BlobStore
from storage.errors import BackupDamaged, BackupFailed, BackupRefused, DarkroomError, InUse, StoreUnavailable
from storage.postgres.locks import BLOB_SWEEP, try_lock
from storage.postgres.metrics import freshness
from storage.postgres.upkeep import last_backup
from storage.settings import BlobSettings, Settings, previous_key_file
from tests.flows.upkeep.backup.source import OWNER_KEY, PASSPHRASE, Source, source

ONLY_THE_LAST = BackupSettings(keep_last=1, keep_days=0, keep_weeks=0, keep_months=0)


@pytest.fixture(scope="module")
def old(
    postgres_server: EmbeddedPostgres, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Source]:
    """A platform with one backup."""
    with source(postgres_server, migrated_template, tmp_path_factory.mktemp("platform"), keep_last=50) as made:
        made.back_up()
        yield made


@pytest.fixture
def copy(old: Source, tmp_path: Path) -> Path:
    """A copy of its backups, to be damaged."""
    return Path(shutil.copytree(old.place, tmp_path / "copy"))


def say(_line: str) -> None:
    """Nobody reads it."""


def newest(place: Path) -> tuple[BackupStore, Manifest]:
    store = BackupStore(str(place))
    return store, store.manifest(store.newest())


def print_figures(figures: Mapping[str, float]) -> None:
    """Show what a backup cost: with -s."""
    sys.stdout.write("".join(f"{name:>24} {value:>14,}\n" for name, value in figures.items()))


def complaint(place: Path) -> str:
    """What verify says of the newest backup; nothing when it is whole."""
    store = BackupStore(str(place))
    try:
        check_whole(store, store.newest())
    except DarkroomError as error:
        return str(error)
    return ""


def test_backups_that_stop_raise_an_alert_until_there_is_another(old: Source) -> None:
    def late(days: float, allowed: float = 3) -> bool:
        now = datetime.now(UTC) + timedelta(days=days)
        old.stores.database.run(freshness.sound(now, 900, allowed))
        return last_backup.LATE in [alert.name for alert in old.stores.database.run(freshness.raised())]

    first = old.stores.database.run(last_backup.newest())
    assert first is not None
    assert first.name == newest(old.place)[1].name
    assert (first.place, late(2.9), late(3.1), late(9, allowed=0)) == (old.place.as_uri(), False, True, False)
    assert late(3.1)
    old.back_up()
    assert not late(2.9)


def test_nobody_misses_backups_where_there_never_was_one() -> None:
    assert last_backup.alert_of(None, datetime.now(UTC), 3) == {}


def test_a_second_backup_copies_only_what_is_new(old: Source) -> None:
    before = old.all_bytes()
    old.add_job("something new")
    made = old.back_up()
    print_figures(made.figures())
    after = old.all_bytes()
    new = {path for path in after if path not in before}
    assert made.copied.count == 1
    assert made.copied.size == len("something new" * 100)
    assert made.copied_artifacts.size == 0
    assert len([path for path in new if path.startswith("blobs/")]) == 1
    assert all(after[path] == content for path, content in before.items())
    assert complaint(old.place) == ""


def test_a_backup_holds_no_secret_that_is_not_sealed(old: Source) -> None:
    secrets = [
        OWNER_KEY.encode(),
        old.settings.api.signing_key.get_secret_value().encode(),
        old.settings.notifications.sealing_key.get_secret_value().encode(),
        old.settings.prefect.auth.get_secret_value().encode(),
        PASSPHRASE.encode(),
        b"AGE-SECRET-KEY",
    ]
    for path, content in old.all_bytes().items():
        assert [secret for secret in secrets if secret in content] == [], path
    for folder in (old.place, old.place / "backups", old.place / "blobs"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    store, manifest = newest(old.place)
    opened = sealed_keys.unseal(store.read(manifest, KEYS), store.read(manifest, IDENTITY).decode(), PASSPHRASE)
    assert {name: content.decode().strip() for name, content in opened.items()} == {
        "owner.key": OWNER_KEY,
        "signing.key": old.settings.api.signing_key.get_secret_value(),
        "sealing.key": old.settings.notifications.sealing_key.get_secret_value(),
        "prefect.auth": old.settings.prefect.auth.get_secret_value(),
        "mlflow.auth": old.settings.mlflow.auth.get_secret_value(),
        "valkey.key": old.settings.valkey_key_file.read_text().strip(),
        "valkey-darkroom.key": old.settings.valkey_darkroom_key_file.read_text().strip(),
    }


def test_every_file_of_the_settings_that_holds_a_secret_is_backed_up() -> None:
    settings = Settings()
    files = {
        name for name, _ in inspect.getmembers(Settings, lambda it: isinstance(it, property)) if name.endswith("_file")
    }
    made_at_each_start = {settings.mlflow_accounts_file}
    rotated = {previous_key_file(file) for file in (settings.signing_key_file, settings.sealing_key_file)}
    assert {getattr(settings, name) for name in files} - made_at_each_start == set(settings.backed_up_secrets) - rotated
    assert rotated < set(settings.backed_up_secrets)


def test_rotated_keys_travel_with_those_before_them(tmp_path: Path) -> None:
    settings = with_own_keys(Settings(data_folder=tmp_path))
    keys = settings.signing_key_file, settings.sealing_key_file
    before = {previous_key_file(file).name: file.read_bytes().strip() for file in keys}
    for file in keys:
        file.rename(previous_key_file(file))
    pair = sealed_keys.make_key_pair(PASSPHRASE)
    rotated = with_own_keys(Settings(data_folder=tmp_path))
    sealed = sealed_keys.seal(sealed_keys.gather(rotated), pair.recipient)
    opened = sealed_keys.unseal(sealed, pair.identity, PASSPHRASE)
    assert {name: opened[name].strip() for name in before} == before
    for file in keys:
        assert opened[file.name].strip() == file.read_bytes().strip() != before[previous_key_file(file).name]


def test_previous_keys_that_come_from_the_environment_are_backed_up_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_API__PREVIOUS_SIGNING_KEY", "signed before")
    monkeypatch.setenv("DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY", "sealed before")
    (tmp_path / "sealing.previous.key").write_text("no longer used\n")
    held = sealed_keys.gather(Settings(data_folder=tmp_path))
    assert held == {"signing.previous.key": b"signed before", "sealing.previous.key": b"sealed before"}


def test_any_file_that_is_cut_changed_or_missing_is_named(copy: Path) -> None:
    _, manifest = newest(copy)
    folder = copy / "backups" / manifest.name
    assert len(manifest.files) == 7
    for file in manifest.files:
        path, content = folder / file.name, (folder / file.name).read_bytes()
        path.write_bytes(content[:-1])
        assert f"'{file.name}' has {file.size - 1:,} bytes and should have {file.size:,}" in complaint(copy)
        path.write_bytes(
            content[: file.size // 2] + bytes([content[file.size // 2] ^ 1]) + content[file.size // 2 + 1 :]
        )
        assert f"the bytes of '{file.name}' have changed" in complaint(copy)
        path.unlink()
        assert f"lacks its file '{file.name}'" in complaint(copy)
        path.write_bytes(content)
    assert complaint(copy) == ""


def test_backups_of_one_second_are_in_order_by_name(old: Source) -> None:
    made = [old.back_up().manifest.name for _ in range(3)]
    assert sorted(made) == made
    assert BackupStore(str(old.place)).newest() == made[-1]


def test_any_blob_that_is_cut_changed_or_missing_is_named(copy: Path) -> None:
    blobs = [path for path in (copy / "blobs").rglob("*") if path.is_file()]
    assert len(blobs) > 4
    for path in blobs:
        content = path.read_bytes()
        path.write_bytes(content[1:])
        assert f"blob {path.name} has" in complaint(copy)
        path.write_bytes(bytes([content[0] ^ 0x80]) + content[1:])
        assert f"the bytes of blob {path.name} have changed" in complaint(copy)
        path.unlink()
        assert f"blob {path.name} is missing" in complaint(copy)
        path.write_bytes(content)
    assert complaint(copy) == ""


def test_a_cut_blob_of_the_place_is_copied_again_and_no_backup_counts_on_it(old: Source) -> None:
    cut = [path for path in (old.place / "blobs").rglob("*") if path.is_file()]
    contents = {path: path.read_bytes() for path in cut}
    for path, content in contents.items():  # rows' bytes and MLflow's artifacts
        path.write_bytes(content[:-1])
    made = old.back_up()
    assert made.copied.count == made.manifest.blobs.count > 0
    assert made.copied_artifacts.size == made.manifest.artifacts.size > 0
    assert complaint(old.place) == ""
    assert {path: path.read_bytes() for path in cut} == contents


def test_a_cut_blob_that_the_platform_has_lost_too_is_named_and_in_no_list(old: Source) -> None:
    image = next(iter(old.stores.blobs.list()))
    content = old.stores.blobs.read(image.sha256)
    [path] = (old.place / "blobs").rglob(image.sha256)
    path.write_bytes(content[:-1])
    old.stores.blobs.delete(image.sha256)
    made = old.back_up()
    assert made.manifest.lost == [f"Blob {image.sha256} is gone"]
    assert f"{made.place} has no whole copy of them, in no backup" in made.complaint()
    assert complaint(old.place) == ""
    old.stores.blobs.put(content)
    assert old.back_up().complaint() == ""
    assert path.read_bytes() == content


def test_a_changed_blob_is_put_aside_by_verify_and_copied_again(old: Source) -> None:
    old.back_up()
    blobs = [path for path in (old.place / "blobs").rglob("*") if path.is_file()]
    path, content = blobs[0], blobs[0].read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    said = " ".join(done.output.split())
    assert (done.exit_code, f"the bytes of blob {path.name} have changed" in said) == (1, True), said
    assert "Back up again" in said
    assert "If the platform is lost" in said
    assert said.endswith("--without-damaged")
    assert not path.exists()
    assert (old.place / "damaged" / path.name).read_bytes() != content
    old.back_up()
    assert path.read_bytes() == content
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    assert (done.exit_code, "is whole" in done.output) == (0, True)


def test_a_changed_blob_is_put_aside_also_where_a_dump_is_cut(old: Source) -> None:
    made = old.back_up()
    path = next(path for path in (old.place / "blobs").rglob("*") if path.is_file())
    path.write_bytes(path.read_bytes() + b"more")
    dump = old.place / "backups" / made.manifest.name / next(f.name for f in made.manifest.files if ".dump" in f.name)
    dump.write_bytes(dump.read_bytes()[:-7])
    done = CliRunner().invoke(app, ["backup", "verify", str(old.place)])
    said = " ".join(done.output.split())
    assert (done.exit_code, path.exists(), (old.place / "damaged" / path.name).exists()) == (1, False, True), said
    assert "go back to this one for nothing. What was there of the blobs is in" in said


def test_a_manifest_that_changed_is_damage_and_a_backup_without_one_is_none(copy: Path) -> None:
    store, manifest = newest(copy)
    [path] = (file for file in (copy / "backups" / manifest.name).iterdir() if is_manifest(file.name))
    content = path.read_bytes()
    for damaged in (content[:-10], content.replace(b'"lost"', b'"Lost"'), b""):
        path.write_bytes(damaged)
        with pytest.raises(BackupDamaged, match="was changed or cut"):
            store.manifest(manifest.name)
    path.unlink()
    assert manifest.name not in store.finished()
    assert manifest.name in store.unfinished()
    for name in store.finished():
        store.delete(name)
    with pytest.raises(BackupRefused, match=f"Finished: none. Without a manifest, so cut: {manifest.name}"):
        store.newest()


def test_a_backup_of_another_schema_format_or_newer_program_is_refused(old: Source) -> None:
    _, manifest = newest(old.place)
    check_known(manifest)
    with pytest.raises(BackupRefused, match="another schema: this Darkroom does not know 9999_from_the_future"):
        check_known(msgspec.structs.replace(manifest, migrations=[*manifest.migrations, "9999_from_the_future"]))
    with pytest.raises(BackupRefused, match=r"prefect's database of version 99\.0"):
        check_known(msgspec.structs.replace(manifest, versions={**manifest.versions, "prefect": "99.0"}))


def test_a_manifest_of_another_format_is_refused(copy: Path) -> None:
    store, manifest = newest(copy)
    other = msgspec.structs.replace(manifest, format=FORMAT + 1)
    name, content = encode(other)
    [path] = (file for file in (copy / "backups" / manifest.name).iterdir() if is_manifest(file.name))
    path.unlink()
    path.with_name(name).write_bytes(content)
    with pytest.raises(BackupRefused, match=f"has format {FORMAT + 1}"):
        store.manifest(manifest.name)


def test_no_blob_is_swept_until_they_are_copied(old: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    copying = backup.copy_blobs

    def watched(*arguments: Any) -> object:
        with old.stores.database.connect() as other:
            held.append(not try_lock(other, BLOB_SWEEP))
        return copying(*arguments)

    monkeypatch.setattr(backup, "copy_blobs", watched)
    old.back_up()
    assert held == [True]
    with old.stores.database.connect() as other:
        assert try_lock(other, BLOB_SWEEP)


def test_a_backup_that_dies_is_none_and_what_it_copied_is_not_copied_again(
    old: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = BackupStore(str(old.place)).finished()
    old.add_job("before the death")

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(sealed_keys, "seal", die)
        old.back_up()
    store = BackupStore(str(old.place))
    assert store.finished() == before
    assert len(store.unfinished()) == 1
    assert old.back_up().copied.count == 0
    assert len(store.finished()) == len(before) + 1


def test_bytes_that_were_lost_before_are_named_and_the_rest_is_backed_up(old: Source) -> None:
    job = old.add_job("soon lost")
    statement = "select sha256 from data_set_images where data_set_id = %s"
    with psycopg.connect(old.settings.postgres.url.get_secret_value()) as connection:
        [(sha256,)] = connection.execute(statement, (job.data_set_id,)).fetchall()
    old.stores.blobs.delete(sha256)
    made = old.back_up()
    assert made.manifest.lost == [f"Blob {sha256} is gone"]
    assert made.figures()["lost"] == 1
    assert "1 blobs that rows name were lost" in made.complaint()
    assert complaint(old.place) == ""
    old.stores.blobs.put(b"soon lost" * 100)
    assert old.back_up().complaint() == ""


def test_a_blob_that_changed_before_does_not_replace_a_good_one_in_the_backup(old: Source) -> None:
    image = old.put(b"rotting")
    [path] = Path(old.settings.blobs.url.removeprefix("file://")).rglob(image.sha256)
    path.write_bytes(b"rottimg")
    target = BlobStore(old.settings.blobs.model_copy(update={"url": (old.place / "x").as_uri()}))
    copied = backup.copy_blobs(old.stores.blobs, target, {image.sha256: image.size}, {})
    assert copied.lost == [f"Blob {image.sha256} no longer has the bytes of its name"]
    assert list(target.list()) == []
    old.stores.blobs.delete(image.sha256)


def test_two_backups_of_a_platform_at_once_are_refused(old: Source) -> None:
    with old.stores.database.session_lock(BACK_UP), pytest.raises(InUse, match="Another backup"):
        old.back_up()


def test_refusals_before_anything_is_written(old: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = old.settings.data_folder / "backups"
    with pytest.raises(BackupRefused, match="Back up to another disk"):
        back_up_to(old.stores, str(inside), say)
    with pytest.raises(BackupRefused, match="DARKROOM_BACKUP__DESTINATION"):
        back_up_to(old.stores, "", say)
    with pytest.raises(BackupRefused, match="cannot be opened"):
        back_up_to(old.stores, "nosuch://bucket/there", say)
    with monkeypatch.context() as patched, pytest.raises(BackupRefused, match="darkroom backup key"):
        patched.setattr(old.settings.backup, "key_file", str(tmp_path / "none"))
        back_up_to(old.stores, str(tmp_path / "there"), say)
    with monkeypatch.context() as patched, pytest.raises(BackupRefused, match="There is no pg_dump"):
        patched.setattr(old.settings.backup, "postgres_programs", str(tmp_path))
        back_up_to(old.stores, str(tmp_path / "there"), say)
    assert BackupStore(str(tmp_path / "there")).finished() == []
    with pytest.raises(BackupRefused, match="too short: 12 at least"):
        sealed_keys.make_key_pair("short")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        BackupSettings(keep_last=0)


def test_a_database_that_pg_dump_does_not_get_is_named_and_leaves_no_backup(old: Source, tmp_path: Path) -> None:
    url = old.settings.backup.mlflow_database
    gone = make_conninfo(url.get_secret_value(), dbname="gone", password="hidden")
    old.settings.backup.mlflow_database = SecretStr(gone)
    try:
        with pytest.raises(BackupFailed, match="does not exist") as raised:
            back_up_to(old.stores, str(tmp_path), say)
    finally:
        old.settings.backup.mlflow_database = url
    assert "hidden" not in str(raised.value)
    assert BackupStore(str(tmp_path)).finished() == []


def test_the_newest_of_each_period_are_kept() -> None:
    start = datetime(2026, 11, 30, 3, tzinfo=UTC)
    backups = {f"{start - timedelta(days=days)}": start - timedelta(days=days) for days in range(400)}
    settings = BackupSettings(keep_last=3, keep_days=7, keep_weeks=4, keep_months=6)
    names = sorted(kept(backups, settings), reverse=True)
    assert [name[5:10] for name in names] == [
        *("11-30", "11-29", "11-28", "11-27", "11-26", "11-25", "11-24"),
        *("11-22", "11-15", "10-31", "09-30", "08-31", "07-31", "06-30"),
    ]
    assert kept({}, settings) == set()
    assert kept(backups, ONLY_THE_LAST) == {names[0]}


def test_backups_that_go_take_the_blobs_that_no_other_names(old: Source, copy: Path) -> None:
    store = BackupStore(str(copy))
    one, manifest = newest(copy)
    orphan, young = one.blobs.put(b"of a backup that goes"), one.blobs.put(b"of one that is being made")
    [path] = copy.rglob(orphan.sha256)
    aged = path.stat().st_mtime - YOUNG_SECONDS - 60
    os.utime(path, (aged, aged))
    dropped = drop_old(store, ONLY_THE_LAST)
    assert store.finished() == [manifest.name]
    assert manifest.name not in dropped.names
    assert (dropped.blobs, dropped.faults) == (1, [])
    assert store.blobs.exists(young.sha256)
    assert complaint(copy) == ""


def test_the_backup_just_made_stays_though_the_clock_was_set_back(old: Source, copy: Path) -> None:
    old.back_up()
    shutil.copytree(old.place, copy, dirs_exist_ok=True)
    store = BackupStore(str(copy))
    earlier, *_, last = store.finished()
    dropped = drop_old(store, ONLY_THE_LAST, earlier)
    assert {earlier, last} == set(store.finished())
    assert not {earlier, last} & set(dropped.names)


@pytest.mark.parametrize("damaged", ["the manifest", "the list of blobs"])
def test_a_damaged_backup_stays_with_all_blobs_and_holds_up_neither_the_others_nor_a_new_one(
    old: Source, copy: Path, damaged: str
) -> None:
    old.back_up()
    shutil.copytree(old.place, copy, dirs_exist_ok=True)
    store = BackupStore(str(copy))
    first, *others, last = store.finished()
    if damaged == "the manifest":
        broken, [file] = first, (copy / "backups" / first).glob("manifest-*")
    else:
        broken, file = last, copy / "backups" / last / BLOBS
    file.write_bytes(file.read_bytes() + b" ")
    orphan = store.blobs.put(b"which the damaged one may name")
    [path] = copy.rglob(orphan.sha256)
    written = path.stat().st_mtime - YOUNG_SECONDS - 60
    os.utime(path, (written, written))

    dropped = drop_old(store, ONLY_THE_LAST)
    assert broken in store.finished()
    assert set(dropped.names) == {first, *others, last} - {broken, last}
    assert (len(dropped.faults), dropped.blobs, store.blobs.exists(orphan.sha256)) == (1, 0, True)
    assert broken in dropped.faults[0]

    made = back_up_to(old.stores, str(copy), say)
    assert made.figures()["unreadable"] == 1
    assert f"Backup {made.manifest.name} is finished, but older backups" in made.complaint()
    check_whole(store, made.manifest.name)


def test_a_place_that_may_not_be_written_to_is_named(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, manifest = newest(copy)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "remove", refuse)
    with pytest.raises(StoreUnavailable, match=rf"{store.url} does not answer \(PermissionError: .*may write to it"):
        store.delete(manifest.name)


def test_the_flow_does_nothing_without_a_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "open_stores", lambda _: pytest.fail("it opened the stores"))
    assert backup.back_up.fn() == ""


def test_the_keys_open_with_age_itself(old: Source) -> None:
    store, manifest = newest(old.place)
    private = pyrage.passphrase.decrypt(store.read(manifest, IDENTITY), PASSPHRASE)
    assert private.startswith(b"AGE-SECRET-KEY-1")
    assert store.read(manifest, BLOBS)


def test_a_place_that_is_no_folder_holds_backups_too(old: Source) -> None:
    place = "memory://elsewhere/backups"
    first, second = back_up_to(old.stores, place, say), back_up_to(old.stores, place, say)
    assert first.copied.count == first.manifest.blobs.count > 4
    assert second.copied.count == 0
    store = BackupStore(place)
    assert store.finished() == sorted((first.manifest.name, second.manifest.name))
    check_whole(store, second.manifest.name)
    store.delete(first.manifest.name)
    assert store.newest() == second.manifest.name


def test_the_programs_of_postgres_get_no_credentials_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pg_dump").write_text("#!/bin/sh\nenv\n")
    (tmp_path / "pg_dump").chmod(0o700)
    for name in ("PREFECT_API_AUTH_STRING", "AWS_SECRET_ACCESS_KEY", "DARKROOM_API__SIGNING_KEY", "PGPASSWORD"):
        monkeypatch.setenv(name, "a secret")
    written: list[bytes] = []
    dumps.dump(BackupSettings(postgres_programs=str(tmp_path)), "postgresql://u:mine@/d", written.append)
    environment = b"".join(written).decode()
    assert "PGPASSWORD=mine" in environment
    assert "a secret" not in environment


def test_a_disk_that_does_not_answer_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(LocalFileSystem, "info", broken)
    with pytest.raises(StoreUnavailable):
        BackupStore(str(tmp_path)).finished()
    with pytest.raises(StoreUnavailable):
        copy_artifacts(tmp_path.as_uri(), BlobStore(BlobSettings(url=(tmp_path / "blobs").as_uri())), {})
