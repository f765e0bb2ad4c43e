"""The newest of each period are kept; what goes takes with it only what no other names."""

from __future__ import annotations

import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flows.upkeep.backup.backup import back_up_to
from flows.upkeep.backup.backup_store import BackupStore
from flows.upkeep.backup.manifest import BLOBS
from flows.upkeep.backup.old_backups import YOUNG_SECONDS, drop_old, kept
from flows.upkeep.backup.verification import check_whole
from storage.backup_settings import BackupSettings
from tests.flows.upkeep.backup.source import Source, complaint, newest, say

ONLY_THE_LAST = BackupSettings(keep_last=1, keep_days=0, keep_weeks=0, keep_months=0)


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
    old.back_up()  # the one that stays; what was copied is the one that goes
    shutil.copytree(old.place, copy, dirs_exist_ok=True)
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
    assert made.metrics()["unreadable"] == 1
    assert f"Backup {made.manifest.name} is finished, but older backups" in made.complaint()
    check_whole(store, made.manifest.name)
