"""darkroom backup."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import app


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with the folder `kept`, and no platform."""
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").mkdir()


def back_up(*words: str) -> tuple[int, str]:
    """The command's exit code, and what it said."""
    done = CliRunner().invoke(app, ["backup", *words], env={"COLUMNS": "200"})
    return done.exit_code, " ".join(done.output.split())


@pytest.mark.parametrize("words", [["lst"], ["--passphrase-file", "kept/key", "lst"]])
def test_a_mistyped_command_makes_no_backup(words: list[str]) -> None:
    code, said = back_up(*words)
    assert (code, "'lst' is neither a command nor a folder here. A new folder is ./lst." in said) == (2, True), said


@pytest.mark.parametrize("place", ["kept", ".", "./lst", "file:///mnt", "memory:lst", "--passphrase-file=key"])
def test_a_path_an_url_and_a_folder_that_is_there_are_places(place: str) -> None:
    code, said = back_up(place)
    assert (code, "Is the platform up?" in said) == (1, True), said
