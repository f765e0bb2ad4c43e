"""darkroom key."""

from __future__ import annotations

import pytest

from tests.deployments.line import Line


def test_a_key_is_shown_once_works_as_scoped_and_stops_when_revoked(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = line("key", "create", "for reading", "--scope", "jobs:read")
    text = created.stdout.strip()
    identity = text.split("_")[1]
    listed = line("key", "list").output
    monkeypatch.setenv("DARKROOM_API__KEY", text)
    reading = line("jobs", "list")
    training = line("train", line.photos(), "mug", "--yes")
    revoked = line("key", "revoke", identity)
    afterwards = line("jobs", "list")

    assert text.startswith("drk_")
    assert "for reading" in listed
    assert "jobs:read" in listed
    assert "not noted" in listed  # the operator, or a key made before makers were noted
    assert "operator" not in listed
    assert text not in listed
    assert reading.exit_code == 0, reading.output
    assert training.exit_code == 1
    assert "models:read" in training.output
    assert revoked.output == f"key {identity} (for reading) is revoked\n"
    assert afterwards.exit_code == 1
    assert "revoked" in line("key", "list").output


def test_an_unknown_scope_is_a_usage_error(line: Line) -> None:
    assert line("key", "create", "x", "--scope", "everything").exit_code == 2


def test_an_unknown_key_is_an_error_of_one_line(line: Line) -> None:
    result = line("key", "revoke", "nothing")

    assert result.exit_code == 1
    assert result.output == "error: No key 'nothing'. See: darkroom key list\n"
