"""Commands of pages that no other test types: on a database and a Valkey, without a platform."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from deployments.cli import app
from storage.postgres.connection import Database, Query
from storage.settings import load_settings

Typed = Callable[..., Result]


@pytest.fixture
def typed(database_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Typed:
    """Types `darkroom ...` against fresh stores."""
    for name, value in {
        "DARKROOM_POSTGRES__URL": database_url,
        "DARKROOM_REDIS__URL": valkey_url,
        "DARKROOM_DATA_FOLDER": str(tmp_path),
        "COLUMNS": "200",
    }.items():
        monkeypatch.setenv(name, value)
    return lambda *words: CliRunner().invoke(app, list(words))


def an_event_that_failed() -> int:
    statement = """
        insert into outbox (kind, subject, failures, dead_at, last_error)
        values ('follow.added', 'x', 10, now(), 'no such account') returning id"""
    with Database(load_settings().postgres) as database:
        [row] = database.run(Query(statement, {}, list))
        return int(row["id"])


def test_events_are_listed_replayed_and_discarded(typed: Typed) -> None:
    first, second = an_event_that_failed(), an_event_that_failed()

    listed = typed("events", "list")
    assert listed.exit_code == 0, listed.output
    assert [str(event) in listed.output for event in (first, second)] == [True, True]
    assert "no such account" in listed.output
    assert typed("events", "replay", str(first)).output == f"event {first} is due again\n"
    assert typed("events", "discard", str(second)).output == f"event {second} is discarded\n"
    assert str(second) not in typed("events", "list").output


def test_days_are_backfilled(typed: Typed) -> None:
    days = ("--from", "2026-06-01", "--to", "2026-06-07")

    rolled = typed("backfill", "roll-up-metrics", *days)
    ranked = typed("backfill", "rank-leaderboards", *days)

    assert (rolled.exit_code, rolled.output) == (
        0,
        "roll-up-metrics: 0 activities of 0 days, 2026-06-01 to 2026-06-07\n",
    )
    assert ranked.exit_code == 0, ranked.output
    assert "of 7 days, 2026-06-01 to 2026-06-07" in ranked.output


def test_a_search_index_is_built_again(typed: Typed) -> None:
    done = typed("rebuild", "models")

    assert done.exit_code == 0, done.output
    assert "searches of" in done.output


def test_the_key_of_backups_is_made_once(typed: Typed, tmp_path: Path) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.write_text("correct horse battery staple\n")

    made = typed("backup", "key", "--passphrase-file", str(passphrase))
    again = typed("backup", "key", "--passphrase-file", str(passphrase))

    assert made.exit_code == 0, made.output
    assert (tmp_path / "backup.key").stat().st_mode & 0o077 == 0
    assert again.exit_code == 1
    assert "is there already" in again.output
