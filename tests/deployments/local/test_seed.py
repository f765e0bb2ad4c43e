"""What the first `up` puts in place, and leaves alone afterwards."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from deployments.local.seed import ensure_owner, with_own_keys
from storage.postgres.accounts import accounts
from storage.postgres.connection import Database
from storage.records.accounts.accounts import Scope, split_key
from storage.settings import PostgresSettings, Settings


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_folder=tmp_path, postgres=PostgresSettings(url=SecretStr(database_url)))


def test_the_owners_key_is_written_once_for_this_user_alone_and_works_with_every_scope(settings: Settings) -> None:
    ensure_owner(settings)
    text = settings.owner_key_file.read_text().strip()
    ensure_owner(settings)

    assert settings.owner_key_file.read_text().strip() == text
    assert settings.owner_key_file.stat().st_mode & 0o777 == 0o600
    identity, secret = split_key(text) or ("", "")
    with Database(settings.postgres) as database:
        (key,) = database.run(accounts.keys())
    assert key.id == identity
    assert key.works(secret, datetime.now(UTC))
    assert set(key.scopes) == {scope.value for scope in Scope}


def test_looking_at_the_starter_loads_no_library_of_models() -> None:
    """Every `up` looks at it before it starts anything: torch would take 7 s of a core, and 450 MB for good."""
    program = "from deployments.base_models.base_folders import shipped_folder as look"
    program += (
        "; from deployments.local.seed import STARTER_FOLDER; look(STARTER_FOLDER); import sys; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert {*loaded.stdout.split()}.isdisjoint({"torch", "diffusers", "transformers"})


def test_a_key_that_the_database_does_not_know_is_replaced(settings: Settings) -> None:
    settings.owner_key_file.write_text("drk_000000000000_" + "0" * 64)

    ensure_owner(settings)

    identity, _ = split_key(settings.owner_key_file.read_text().strip()) or ("", "")
    with Database(settings.postgres) as database:
        assert [key.id for key in database.run(accounts.keys())] == [identity]


def test_the_keys_that_sign_and_seal_are_made_once_and_kept_private(settings: Settings) -> None:
    first, second = with_own_keys(settings), with_own_keys(settings)

    assert first == second
    keys = [first.api.signing_key.get_secret_value(), first.notifications.sealing_key.get_secret_value()]
    assert [len(key) for key in keys] == [64, 64]
    assert keys[0] != keys[1]
    for file in (settings.signing_key_file, settings.sealing_key_file):
        assert file.stat().st_mode & 0o777 == 0o600
    assert not any(key in repr(first) for key in keys)


def test_a_signing_key_that_was_given_is_used(settings: Settings) -> None:
    given = settings.model_copy(update={"api": settings.api.model_copy(update={"signing_key": SecretStr("given")})})

    assert with_own_keys(given).api.signing_key.get_secret_value() == "given"
    assert not settings.signing_key_file.exists()
