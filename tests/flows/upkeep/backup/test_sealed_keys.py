"""Keys are in every backup, sealed, with those before them; age itself opens them."""

from __future__ import annotations

import inspect
import stat
from pathlib import Path

import pyrage
import pytest

from deployments.local.seed import with_own_keys
from flows.upkeep.backup import sealed_keys
from flows.upkeep.backup.manifest import BLOBS, IDENTITY, KEYS
from storage.settings import Settings, previous_key_file
from tests.flows.upkeep.backup.source import OWNER_KEY, PASSPHRASE, Source, newest


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


def test_the_keys_open_with_age_itself(old: Source) -> None:
    store, manifest = newest(old.place)
    private = pyrage.passphrase.decrypt(store.read(manifest, IDENTITY), PASSPHRASE)
    assert private.startswith(b"AGE-SECRET-KEY-1")
    assert store.read(manifest, BLOBS)
