"""The flow rank-leaderboards: a day has its boards, whole, when it begins, or somebody says that it has not."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from deployments.commands.metrics import backfill as command
from flows.metrics.backfill import backfill_boards
from flows.metrics.leaderboards import rank_due
from flows.metrics.rollups import roll_up
from flows.upkeep import sensor
from storage.errors import Refused
from storage.postgres.catalog import catalog
from storage.postgres.connection import Query
from storage.postgres.metrics import activity, freshness, leaderboards
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.freshness import PartitionState
from storage.records.metrics.leaderboards import BOARDS, RANK
from storage.stores import Stores
from tests.flows.upkeep.test_sensor import waits
from tests.storage.makers import a_published_model, an_account
from tests.warm import run_warm

TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
"""Noon, so that nothing here hangs on the hour at which it runs."""
EVENING = TODAY.replace(hour=22, minute=12)


@pytest.fixture
def downloaded(stores: Stores) -> None:
    """A version was downloaded at noon; both flows are watched since this morning."""
    model = a_published_model(stores.database, an_account(stores.database))
    [version] = stores.database.run(catalog.versions([model.id]))
    act = Act(key="one", entity=Counted.VERSION, entity_id=version.id, metric=Metric.DOWNLOAD, occurred_at=TODAY)
    assert stores.database.run(activity.ingest("test", [act], now=TODAY)).accepted == 1
    began = "update watched_flows set started_at = %(morning)s"
    stores.database.run(Query(began, {"morning": TODAY.replace(hour=1)}, len))


def day(ahead: int) -> date:
    return (TODAY + timedelta(days=ahead)).date()


def scores(stores: Stores, ahead: int) -> dict[str, list[int]]:
    """The scores of each board of a day that can be read."""
    shown = {name: stores.database.run(leaderboards.show(name, day(ahead), latest=False)) for name in BOARDS}
    return {name: [place.score for place in found.places] for name, found in shown.items() if found is not None}


DOWNLOADED = {"creators-week": [1], "creators-month": [1], "newcomers-month": [1], "pictures-month": []}


def test_tomorrows_boards_are_made_when_what_they_score_is_summed_and_missed_days_too(
    stores: Stores, downloaded: None
) -> None:
    roll_up(stores, TODAY)
    assert rank_due(stores, TODAY) == []
    assert rank_due(stores, EVENING) == []  # the last two hours until ten are not summed
    roll_up(stores, EVENING)
    assert [ranked.day for ranked in rank_due(stores, EVENING)] == [day(1)]
    assert rank_due(stores, EVENING) == []
    assert scores(stores, 1) == DOWNLOADED
    later = EVENING + timedelta(days=2)
    roll_up(stores, later)
    assert [ranked.day for ranked in rank_due(stores, later)] == [day(2), day(3)]
    assert scores(stores, 3) == DOWNLOADED
    states = {flow.flow: flow.state for flow in stores.database.run(freshness.report(later, 900.0))}
    assert states[RANK] is PartitionState.FRESH


def test_a_run_that_begins_a_moment_before_its_sums_are_there_waits_for_them(
    stores: Stores, downloaded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sensor, "LOOK_SECONDS", 20.0)  # so that only the word of who finished can wake it
    roll_up(stores, TODAY)
    with ThreadPoolExecutor(1) as beside:
        ranked = beside.submit(rank_due, stores, EVENING, wait_seconds=15.0)
        while not (waits(stores) or ranked.done()):
            time.sleep(0.01)
        roll_up(stores, EVENING)
        assert [boards.day for boards in ranked.result()] == [day(1)]
    assert scores(stores, 1) == DOWNLOADED


def test_a_run_that_is_killed_between_two_boards_leaves_none_and_the_next_makes_them_all(
    stores: Stores, environment: dict[str, str], downloaded: None, tmp_path: Path
) -> None:
    roll_up(stores, EVENING)
    program = (
        "from datetime import datetime; from storage.settings import load_settings\n"
        "from storage.stores import open_stores; from flows.metrics.leaderboards import rank_due\n"
        "with open_stores(load_settings()) as stores:\n"
        f"    rank_due(stores, datetime.fromisoformat('{EVENING.isoformat()}'))"
    )
    environment["DARKROOM_JOBS__CRASH_POINTS"] = f'{{"board-prepared": "die:{tmp_path / "died"}"}}'
    assert run_warm(program, environment=environment).returncode == -9
    assert stores.database.run(Query("select 1 from leaderboard_editions", {}, len)) == 1
    assert scores(stores, 1) == {}
    assert [ranked.boards for ranked in rank_due(stores, EVENING)] == [len(BOARDS)]
    assert scores(stores, 1) == DOWNLOADED
    assert stores.database.run(Query("select 1 from leaderboard_editions", {}, len)) == len(BOARDS)


def test_a_backfill_makes_days_that_nobody_waited_for(
    stores: Stores,
    environment: dict[str, str],
    downloaded: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = TODAY + timedelta(days=1)
    roll_up(stores, now)
    with stores.database.session_lock(RANK), pytest.raises(Refused, match="is making boards at this moment"):
        backfill_boards(stores, day(-1), day(1), at_once=2, now=now)
    done = backfill_boards(stores, day(-1), day(1), at_once=2, now=now)
    assert [ranked.day for ranked in done] == [day(-1), day(0), day(1)]
    assert (scores(stores, 0)["creators-week"], scores(stores, 1)) == ([], DOWNLOADED)
    with pytest.raises(Refused, match="1 of 1 days were not made: The boards of"):
        backfill_boards(stores, day(9), day(9), at_once=1, now=now)
    command.backfill(command.Flow.RANK, TODAY - timedelta(days=1), TODAY)
    assert "rank-leaderboards: 8 boards of 2 days" in capsys.readouterr().out
