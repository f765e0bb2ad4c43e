"""darkroom rotate."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from deployments.cli import app
from deployments.local.seed import with_own_keys
from deployments.local.state import PlatformRecord, ProcessName, holding, name_process, write_record
from storage.postgres.connection import Database, column
from storage.postgres.notifications import endpoints
from storage.postgres.notifications.endpoints import Endpoint, EndpointState
from storage.records.notifications.channels import Channel
from storage.sealing import Seal
from storage.settings import PostgresSettings, Settings, load_settings, previous_key_file
from tests.storage.makers import an_account


@pytest.fixture
def used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of a platform that has started once."""
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    return with_own_keys(load_settings())


@pytest.mark.parametrize("key", ["signing", "sealing"])
def test_a_key_is_made_anew_and_the_old_one_still_read(used: Settings, key: str) -> None:
    file = {"signing": used.signing_key_file, "sealing": used.sealing_key_file}[key]
    before = file.read_text().strip()
    assert not previous_key_file(file).exists()
    done = CliRunner().invoke(app, ["rotate", key])
    assert done.exit_code == 0, done.output
    assert before not in done.output
    assert file.read_text().strip() not in done.output
    for secret in (file, previous_key_file(file)):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    now = with_own_keys(load_settings())
    keys = {
        "signing": (now.api.signing_key, now.api.previous_signing_key),
        "sealing": (now.notifications.sealing_key, now.notifications.previous_sealing_key),
    }[key]
    assert [one.get_secret_value() for one in keys] == [file.read_text().strip(), before]


def test_a_key_that_comes_from_the_environment_is_not_rotated_here(
    used: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_API__SIGNING_KEY", "given")
    done = CliRunner().invoke(app, ["rotate", "signing"])
    assert (done.exit_code, "DARKROOM_API__SIGNING_KEY" in done.output) == (1, True)
    assert not previous_key_file(used.signing_key_file).exists()


def test_a_key_of_the_environment_is_named_also_where_the_data_folder_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    code, said = rotate("signing")
    assert (code, "Run darkroom up once" in said) == (1, True), said
    monkeypatch.setenv("DARKROOM_API__SIGNING_KEY", "given")
    code, said = rotate("signing")
    assert (code, "comes from DARKROOM_API__SIGNING_KEY: set another there" in said) == (1, True), said


def rotate(*words: str) -> tuple[int, str]:
    """The command's exit code, and what it said."""
    done = CliRunner().invoke(app, ["rotate", *words])
    return done.exit_code, " ".join(done.output.split())


def test_links_are_not_cut_short_by_a_second_rotation(used: Settings) -> None:
    file, before = used.signing_key_file, previous_key_file(used.signing_key_file)
    assert rotate("signing")[0] == 0
    kept = file.read_text(), before.read_text()
    code, said = rotate("signing")
    assert (code, "168.0 h" in said, "--forget-previous" in said) == (1, True, True), said
    assert (file.read_text(), before.read_text()) == kept
    assert rotate("signing", "--forget-previous")[0] == 0
    assert before.read_text() == kept[0]
    long_ago = time.time() - used.api.link_lifetime_seconds - 60
    os.utime(before, (long_ago, long_ago))
    assert rotate("signing")[0] == 0


@pytest.mark.parametrize("key", ["signing", "sealing"])
def test_a_second_rotation_waits_for_a_restart_of_what_still_uses_the_first_key(used: Settings, key: str) -> None:
    file = {"signing": used.signing_key_file, "sealing": used.sealing_key_file}[key]
    before = previous_key_file(file)
    with holding(used.data_folder):
        write_record(used.data_folder, PlatformRecord(name_process(os.getpid()), True, {}))
        assert rotate(key)[0] == 0
        kept = file.read_text(), before.read_text()
        code, said = rotate(key, "--forget-previous")
        assert (code, "darkroom down && darkroom up" in said) == (1, True), said
        assert (file.read_text(), before.read_text()) == kept
        now = ProcessName(os.getpid(), time.time() + 1)
        write_record(used.data_folder, PlatformRecord(now, True, {}))
        assert "Restart first" not in rotate(key)[1]
    assert "Restart first" not in rotate(key)[1]


@pytest.mark.parametrize("key", ["signing", "sealing"])
def test_a_rotation_that_died_between_its_writes_is_repeated(used: Settings, key: str) -> None:
    file = {"signing": used.signing_key_file, "sealing": used.sealing_key_file}[key]
    current = file.read_text()
    previous_key_file(file).write_text(current)
    code, said = rotate(key)
    assert code == 0, said
    assert previous_key_file(file).read_text() == current != file.read_text()


def test_a_previous_key_of_the_environment_would_hide_the_one_that_is_kept(
    used: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_API__PREVIOUS_SIGNING_KEY", "given")
    code, said = rotate("signing")
    assert (code, "DARKROOM_API__PREVIOUS_SIGNING_KEY" in said) == (1, True)
    assert not previous_key_file(used.signing_key_file).exists()


def test_a_second_rotation_seals_anew_what_only_the_previous_key_opens(
    used: Settings, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_POSTGRES__URL", database_url)
    file, before = used.sealing_key_file, previous_key_file(used.sealing_key_file)
    first = Seal(load_settings().notifications)
    with Database(PostgresSettings(url=SecretStr(database_url))) as database:
        an_account(database)
        [reader] = database.run(READERS)
        register(database, reader, Channel.WEBHOOK, first, "hook")
        assert rotate("sealing")[0] == 0
        code, said = rotate("sealing")
        assert (code, "1 addresses" in said) == (0, True), said
        hook = database.run(endpoints.get(reader, Channel.WEBHOOK))
        assert opened(hook, Seal(load_settings().notifications)) == ["hook", "secret of hook"]

        register(database, reader, Channel.PUSH, Seal(load_settings().notifications), "push")
        assert rotate("sealing")[0] == 0
        kept = file.read_text(), before.read_text()
        code, said = rotate("sealing")
        assert (code, "1 addresses open with the key before it only" in said) == (1, True), said
        assert (file.read_text(), before.read_text()) == kept
        seal = Seal(load_settings().notifications)
        push = database.run(endpoints.get(reader, Channel.PUSH))
        assert (opened(push, seal), seal.is_current(push.address)) == (["push"], False)
        assert rotate("sealing", "--forget-previous")[0] == 0
        hook = database.run(endpoints.get(reader, Channel.WEBHOOK))
        assert opened(hook, Seal(load_settings().notifications)) == ["hook", "secret of hook"]


def test_a_second_rotation_asks_for_the_database_and_changes_nothing_without(
    used: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert rotate("sealing")[0] == 0
    kept = used.sealing_key_file.read_text(), previous_key_file(used.sealing_key_file).read_text()
    monkeypatch.setenv("DARKROOM_POSTGRES__URL", "postgresql://nobody@127.0.0.1:1/nothing")
    code, said = rotate("sealing")
    assert (code, "darkroom up --detach" in said) == (1, True), said
    assert (used.sealing_key_file.read_text(), previous_key_file(used.sealing_key_file).read_text()) == kept


def test_keys_that_are_settings_are_changed_by_hand_and_everything_is_sealed_anew_by_a_command(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("DARKROOM_POSTGRES__URL", database_url)
    monkeypatch.setenv("DARKROOM_NOTIFICATIONS__SEALING_KEY", "a" * 64)
    with Database(PostgresSettings(url=SecretStr(database_url))) as database:
        an_account(database)
        [reader] = database.run(READERS)
        register(database, reader, Channel.WEBHOOK, Seal(load_settings().notifications), "hook")
        monkeypatch.setenv("DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY", "a" * 64)
        monkeypatch.setenv("DARKROOM_NOTIFICATIONS__SEALING_KEY", "b" * 64)

        done = CliRunner().invoke(app, ["reseal"])

        assert (done.exit_code, "1 addresses" in done.output) == (0, True), done.output
        monkeypatch.delenv("DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY")
        hook = database.run(endpoints.get(reader, Channel.WEBHOOK))
        assert opened(hook, Seal(load_settings().notifications)) == ["hook", "secret of hook"]

        register(database, reader, Channel.PUSH, Seal(load_settings().notifications), "push")
        monkeypatch.setenv("DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY", "b" * 64)
        monkeypatch.setenv("DARKROOM_NOTIFICATIONS__SEALING_KEY", "c" * 64)
        done = CliRunner().invoke(app, ["reseal"])
        said = " ".join(done.output.split())
        assert (done.exit_code, "1 addresses open with the key before it only" in said) == (1, True), said


READERS = column("select number from accounts", {}, int)


def register(database: Database, reader: int, channel: Channel, seal: Seal, address: str) -> None:
    """An address in use; of a webhook with a secret."""
    sealed = seal.seal(address)
    secret = seal.seal(f"secret of {address}") if channel is Channel.WEBHOOK else None
    database.run(endpoints.put(reader, channel, EndpointState.ACTIVE, address=sealed, shown=address, secret=secret))


def opened(endpoint: Endpoint, seal: Seal) -> list[str]:
    """An address and its secret."""
    return [seal.open(value) for value in (endpoint.address, endpoint.secret) if value is not None]
