"""A backup holds everything and only once, is finished or none, and tells when a bit of it is not what it was."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from flows.runs.flow_names import BACK_UP
from flows.upkeep.backup import backup, sealed_keys
from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from storage.backup_settings import BackupSettings
from storage.blobs.store import BlobStore
from storage.errors import BackupRefused, InUse
from storage.postgres.locks import BLOB_SWEEP, try_lock
from storage.postgres.upkeep import alerts, last_backup
from tests.flows.upkeep.backup.source import Source, complaint, newest, say


def print_figures(figures: Mapping[str, float]) -> None:
    """Show what a backup cost: with -s."""
    sys.stdout.write("".join(f"{name:>24} {value:>14,}\n" for name, value in figures.items()))


def test_backups_that_stop_raise_an_alert_until_there_is_another(old: Source) -> None:
    def late(days: float, allowed: float = 3) -> bool:
        now = datetime.now(UTC) + timedelta(days=days)
        old.stores.database.run(alerts.update(now, 900, allowed))
        return last_backup.LATE in [alert.name for alert in old.stores.database.run(alerts.raised())]

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
    print_figures(made.metrics())
    after = old.all_bytes()
    new = {path for path in after if path not in before}
    assert made.copied.count == 1
    assert made.copied.size == len("something new" * 100)
    assert made.copied_artifacts.size == 0
    assert len([path for path in new if path.startswith("blobs/")]) == 1
    assert all(after[path] == content for path, content in before.items())
    assert complaint(old.place) == ""


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
    assert made.metrics()["lost"] == 1
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


def test_the_flow_does_nothing_without_a_destination(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup, "open_stores", lambda _: pytest.fail("it opened the stores"))
    assert backup.back_up.fn() == ""
