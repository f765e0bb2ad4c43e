"""darkroom rotate."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app
from deployments.local.seed import with_own_keys
from storage.settings import Settings, load_settings, previous_key_file


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
