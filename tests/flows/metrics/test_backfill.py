"""A backfill rebuilds days from their activity, whatever became of their sums, and goes on where it broke off."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from deployments.commands.metrics import backfill as command
from flows.metrics import backfill as backfilling
from flows.metrics.rollups import roll_up
from storage.errors import InvalidRequest, Refused
from storage.postgres.connection import Query
from storage.postgres.metrics import activity, rollups
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.rollups import Totals
from storage.stores import Stores
from tests.storage.makers import a_published_model, an_account
from tests.warm import run_warm

NOW = datetime.now(UTC)


def days_of(stores: Stores) -> dict[date, int]:
    rows = stores.database.run(Query("select day, sum(amount)::int as n from activity_days group by day", {}, list))
    return {row["day"]: row["n"] for row in rows}


@pytest.fixture
def model_id(stores: Stores) -> int:
    """A model that was viewed once on each of five days, rolled up."""
    model = a_published_model(stores.database, an_account(stores.database))
    for ago in range(5):
        at = NOW - timedelta(days=ago)
        act = Act(key=f"{ago}", entity=Counted.MODEL, entity_id=model.id, metric=Metric.VIEW, occurred_at=at)
        stores.database.run(activity.ingest("test", [act], now=at))
    roll_up(stores, NOW)
    return model.id


def day(ago: int) -> date:
    return (NOW - timedelta(days=ago)).date()


def at_midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def test_days_whose_sums_were_lost_come_back_with_their_totals(stores: Stores, model_id: int) -> None:
    right = days_of(stores)
    for damage in ("delete from activity_days", "delete from activity_hours", "update activity_totals set week = 99"):
        stores.database.run(Query(damage, {}, len))
    done = backfilling.backfill(stores, day(4), day(0), at_once=3, now=NOW)
    assert sum(part.activities for part in done) == 5
    assert days_of(stores) == right
    totals = stores.database.run(rollups.totals(Counted.MODEL, model_id, Metric.VIEW))
    assert totals == Totals(day=1, week=5, month=5, year=5, all_time=5)
    assert sum(part.activities for part in backfilling.backfill(stores, day(4), day(0), at_once=1, now=NOW)) == 5


def test_a_backfill_that_is_killed_goes_on_where_it_was(
    stores: Stores, environment: dict[str, str], model_id: int, tmp_path: Path
) -> None:
    program = (
        "from datetime import UTC, datetime, date; from storage.settings import load_settings\n"
        "from storage.stores import open_stores; from flows.metrics.backfill import backfill\n"
        "with open_stores(load_settings()) as stores:\n"
        f"    backfill(stores, date.fromisoformat('{day(4)}'), date.fromisoformat('{day(0)}'), at_once=1, "
        "now=datetime.now(UTC))"
    )
    environment["DARKROOM_JOBS__CRASH_POINTS"] = f'{{"day-backfilled": "die:{tmp_path / "died"}"}}'
    assert run_warm(program, environment=environment).returncode == -9
    left = backfilling.backfill(stores, day(4), day(0), at_once=2, now=NOW)
    assert [part.day for part in left if part.activities] == [day(3), day(2), day(1), day(0)]
    assert len(days_of(stores)) == 5


def test_a_day_that_is_not_kept_is_named_and_stops_no_other(stores: Stores, model_id: int) -> None:
    stores.database.run(Query(f"drop table activity_{day(2):%Y%m%d}", {}, len))
    stores.database.run(Query("delete from activity_days where day <> %(day)s", {"day": day(2)}, len))
    with pytest.raises(Refused, match=f"1 of 5 days were not made: The activity of {day(2)} is not kept"):
        backfilling.backfill(stores, day(4), day(0), at_once=2, now=NOW)
    assert len(days_of(stores)) == 5


def test_the_command_takes_days_that_make_sense(
    stores: Stores,
    environment: dict[str, str],
    model_id: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command.backfill(command.Flow.ROLL_UP, NOW - timedelta(days=4))
    days = (datetime.now(UTC).date() - day(4)).days  # up to yesterday; the suite may have begun on another day
    assert f"{days} activities of {days} days" in capsys.readouterr().out
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    for first, last in ((day(1), day(2)), (day(2), tomorrow.date())):
        with pytest.raises(InvalidRequest, match="--from"):
            command.backfill(command.Flow.ROLL_UP, at_midnight(first), at_midnight(last))
