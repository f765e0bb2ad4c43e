"""A manifest says what a backup is; one that changed is damage."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from flows.upkeep.backup.manifest import FORMAT, encode, is_manifest
from flows.upkeep.backup.verification import check_known
from storage.errors import BackupDamaged, BackupRefused
from tests.flows.upkeep.backup.source import Source, newest


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
