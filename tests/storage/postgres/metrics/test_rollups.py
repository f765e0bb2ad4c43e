"""Sums of counted acts: whatever the order, the repetitions and the deaths, they are those of one pass."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from storage.errors import Refused
from storage.postgres.catalog import catalog, listing
from storage.postgres.connection import Database, Query, Script
from storage.postgres.events import outbox
from storage.postgres.metrics import activity, rollups
from storage.records.catalog.listing import ModelFilter, ModelSort
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.rollups import WINDOWS, RolledUp, Totals
from storage.settings import PostgresSettings
from tests.hypothesis_checks import ALL_HEALTH_CHECKS
from tests.storage.makers import a_published_model, an_account

NOON = datetime(2026, 6, 10, 12, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


class Killed(Exception):
    """Stands for the death of the process, or of its connection, at a statement."""


@dataclass
class World:
    """A database with some entities, and every act that it accepted."""

    database: Database
    entities: dict[Counted, list[int]]
    now: datetime = NOON
    acts: list[Act] = field(default_factory=list)
    keys: Iterator[int] = field(default_factory=count)

    def ingest(self, acts: list[tuple[Counted, int, Metric, int]]) -> None:
        """Count acts, each some hours ago."""
        new = [
            Act(
                key=f"{next(self.keys)}",
                entity=entity,
                entity_id=self.entities[entity][which],
                metric=metric,
                occurred_at=self.now - HOUR * ago,
            )
            for entity, which, metric, ago in acts
        ]
        assert self.database.run(activity.ingest("test", new, now=self.now)).accepted == len(new)
        self.acts += new

    def run(self, script: Script[Any], die_at: int | None = None) -> None:
        """Carry a script out, or only until its statement number `die_at`."""
        with contextlib.suppress(Killed):
            self.database.run(script if die_at is None else dying(script, die_at))

    def days(self) -> list[date]:
        """The days of the last week, and today."""
        return [(self.now - DAY * ago).date() for ago in range(8)]

    def cells(self) -> tuple[Counter[Any], Counter[Any], dict[Any, Totals]]:
        """What one pass over every act makes: hours, days, totals."""
        hours, days = Counter[Any](), Counter[Any]()
        for act in self.acts:
            cell = (act.entity.value, act.entity_id, act.metric.value)
            hours[(act.occurred_at.replace(minute=0), *cell)] += act.amount
            days[(act.occurred_at.date(), *cell)] += act.amount
        sums: dict[Any, Counter[str]] = {}
        for (day, *cell), amount in days.items():
            total = sums.setdefault(tuple(cell), Counter(all_time=0, day=0))
            total["all_time"] += amount
            total["day"] += amount if day == self.now.date() else 0
            for name, length in WINDOWS.items():
                total[name] += amount if 0 <= (self.now.date() - day).days < length else 0
        return hours, days, {cell: Totals(**total) for cell, total in sums.items()}

    def kept(self) -> tuple[Counter[Any], Counter[Any], dict[Any, Totals]]:
        """What the tables hold."""
        cell = "entity::text, entity_id, metric::text"
        hours = self.rows(f"select hour, {cell}, amount from activity_hours")
        days = self.rows(f"select day, {cell}, amount from activity_days")
        totals = [
            (*row[:3], self.database.run(rollups.totals(*row[:3])))
            for row in self.rows(f"select {cell} from activity_totals")
        ]
        return (
            Counter({row[:-1]: row[-1] for row in hours}),
            Counter({row[:-1]: row[-1] for row in days}),
            {row[:3]: row[3] for row in totals},
        )

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.database.run(Query(statement, {}, list))]

    def empty(self) -> None:
        """Forget every act and what was made of it, and begin again at noon."""
        self.acts, self.now = [], NOON
        tables = "activity, activity_pending, activity_keys, activity_hours, activity_days, activity_totals"
        for statement in (
            f"truncate {tables}, flow_partitions, model_stats, version_stats, image_stats",
            "update rollup_state set as_of = null, stale = false",
            "select catalogue_place('model', array(select id from models))",
        ):
            self.database.run(Query(statement, {}, len))


def dying(script: Script[Any], at: int) -> Script[Any]:
    """The same script, dead after so many statements, at the latest before its commit; nothing of it stays."""
    value = None
    for _ in range(at):
        try:
            query = script.send(value)
        except StopIteration:
            break
        value = yield query
    raise Killed


@pytest.fixture(scope="module")
def world(module_database_url: str) -> Iterator[World]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as database:
        owner = an_account(database)
        made = [a_published_model(database, owner, name) for name in ("one", "two")]
        versions = [version.id for model in made for version in database.run(catalog.versions([model.id]))]
        yield World(
            database,
            {Counted.MODEL: [model.id for model in made], Counted.VERSION: versions, Counted.USER: [1, 1]},
        )


ACTS = st.tuples(
    st.sampled_from([Counted.MODEL, Counted.VERSION, Counted.USER]),
    st.integers(0, 1),
    st.sampled_from([Metric.VIEW, Metric.DOWNLOAD, Metric.THUMBS_UP]),
    st.integers(0, 7 * 24),
)
DEATH = st.none() | st.integers(0, 12)
STEPS = st.one_of(
    st.tuples(st.just("ingest"), st.lists(ACTS, min_size=1, max_size=6)),
    st.tuples(st.just("roll up"), st.integers(0, 7), DEATH),
    st.tuples(st.just("build"), st.integers(0, 7), DEATH),
    st.tuples(st.just("settle"), DEATH),
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 2, 6, 7, 29, 30, 364, 365, -1])),
)


@settings(max_examples=40, deadline=None, suppress_health_check=ALL_HEALTH_CHECKS, database=None)
@given(steps=st.lists(STEPS, max_size=14))
@example(
    steps=[
        ("ingest", [(Counted.MODEL, 0, Metric.VIEW, 30), (Counted.MODEL, 0, Metric.VIEW, 0)]),
        ("roll up", 1, None),
        ("roll up", 0, 9),
        ("wait", 7),
        ("build", 7, None),
        ("ingest", [(Counted.MODEL, 0, Metric.VIEW, 167)]),
        ("roll up", 6, None),
    ]
)
@example(
    steps=[
        ("ingest", [(Counted.MODEL, 0, Metric.VIEW, ago) for ago in (0, 24, 72, 160)]),
        *(("roll up", ago, None) for ago in (0, 1, 3, 6)),
        ("wait", 1),
        ("roll up", 0, None),
        ("wait", 6),
        ("roll up", 0, None),
        ("wait", 365),
        ("roll up", 0, 4),
        ("wait", -1),
    ]
)
def test_a_week_in_any_order_with_repetitions_and_deaths_equals_one_pass(world: World, steps: list[Any]) -> None:
    world.empty()
    for step in steps:
        match step:
            case ("ingest", acts):
                world.ingest(acts)
            case ("roll up", ago, death):
                world.run(rollups.roll_up_day(world.days()[ago], world.now), death)
            case ("build", ago, death):
                world.run(rollups.build_day(world.days()[ago], world.now), death)
            case ("settle", death):
                world.run(rollups.settle_totals(world.now), death)
            case ("wait", days):
                world.now += DAY * days
    finish(world)
    assert world.kept() == world.cells()
    assert stats(world) == expected_stats(world)


def finish(world: World) -> None:
    """Roll up whatever waits, as the flow does."""
    for day in sorted({*world.database.run(rollups.waiting_days()), world.now.date()}):
        world.run(rollups.roll_up_day(day, world.now))
    if world.database.run(rollups.state()).stale:
        world.run(rollups.settle_totals(world.now))


def stats(world: World) -> dict[int, tuple[int, int]]:
    """Downloads and thumbs of each model, as the catalogue shows them."""
    rows = world.rows("select model_id, download_count, thumbs_up_count from model_stats")
    return {row[0]: row[1:] for row in rows if row[1:] != (0, 0)}


def expected_stats(world: World) -> dict[int, tuple[int, int]]:
    owner = dict(zip(world.entities[Counted.VERSION], world.entities[Counted.MODEL], strict=True))
    found: dict[int, Counter[Metric]] = {}
    for act in world.acts:
        if act.entity is not Counted.USER and act.metric is not Metric.VIEW:
            model = owner[act.entity_id] if act.entity is Counted.VERSION else act.entity_id
            found.setdefault(model, Counter())[act.metric] += act.amount
    return {model: (counts[Metric.DOWNLOAD], counts[Metric.THUMBS_UP]) for model, counts in found.items()}


def test_rolling_up_again_writes_nothing(world: World) -> None:
    world.empty()
    world.ingest([(Counted.VERSION, 0, Metric.DOWNLOAD, ago) for ago in (0, 1, 30)])
    finish(world)
    before = world.kept()
    events = world.rows("select max(id) from outbox")
    again = "insert into activity_pending select distinct date_trunc('hour', occurred_at), batch_id from activity"
    world.database.run(Query(again, {}, len))
    done = [world.database.run(rollups.roll_up_day(day, world.now)) for day in world.days()]
    assert sum(part.activities for part in done) == 3
    assert sum(part.hour_cells + part.day_cells + part.stats for part in done) == 0
    world.database.run(rollups.settle_totals(world.now))
    assert world.kept() == before
    assert world.rows("select max(id) from outbox") == events


def test_only_models_whose_counts_changed_take_a_new_place_and_are_announced(world: World) -> None:
    world.empty()
    first, second = world.entities[Counted.VERSION]
    models = world.entities[Counted.MODEL]
    world.ingest([(Counted.VERSION, 0, Metric.DOWNLOAD, 1), (Counted.VERSION, 1, Metric.VIEW, 1)])
    [last] = world.rows("select coalesce(max(id), 0) from outbox")
    finish(world)
    events = world.database.run(outbox.of_subject("models", last[0]))
    assert [(row.payload["model_ids"], row.payload["lane"]) for row in events] == [([models[0]], "counts")]
    page = world.database.run(listing.models(ModelFilter(), ModelSort.MOST_DOWNLOADED, limit=10))
    assert page.ids[0] == models[0]
    world.ingest([(Counted.VERSION, 1, Metric.DOWNLOAD, 1)] * 2)
    finish(world)
    page = world.database.run(listing.models(ModelFilter(), ModelSort.MOST_DOWNLOADED, limit=10))
    assert page.ids[0] == models[1]
    assert world.rows("select version_id, download_count from version_stats order by 1") == [(first, 1), (second, 2)]


def test_what_commits_late_is_taken_by_the_next_run(world: World) -> None:
    world.empty()
    with world.database.connect() as connection, connection.transaction():
        connection.execute("insert into activity_batches (source) values ('slow') returning id")
        connection.execute(
            "insert into activity values (%(at)s, %(id)s, 1, lastval(), 'model', 'view')",
            {"at": world.now, "id": world.entities[Counted.MODEL][0]},
        )
        connection.execute("insert into activity_pending values (%(at)s, lastval())", {"at": world.now})
        world.ingest([(Counted.MODEL, 0, Metric.VIEW, 0)])
        finish(world)
        assert world.kept() == world.cells()
    assert world.database.run(rollups.waiting_days()) == [world.now.date()]
    world.acts.append(world.acts[0])
    finish(world)
    assert world.kept() == world.cells()


def test_a_day_whose_activity_was_dropped_keeps_its_sums(world: World) -> None:
    world.empty()
    world.ingest([(Counted.MODEL, 0, Metric.VIEW, 48)])
    finish(world)
    day = world.days()[2]
    world.database.run(Query(f"drop table activity_{day:%Y%m%d}", {}, len))
    with pytest.raises(Refused, match="not kept"):
        world.database.run(rollups.build_day(day, world.now))
    world.database.run(rollups.settle_totals(world.now))
    assert world.kept() == world.cells()
    world.database.run(Query("select day_partition('activity', %(day)s)", {"day": day}, len))


def test_days_are_built_at_once_without_waiting_for_each_other_for_ever(world: World) -> None:
    days = [world.now.date() - timedelta(days=ago) for ago in (1, 2)]
    world.ingest([(Counted.MODEL, 0, Metric.VIEW, 24 * ago) for ago in (1, 2)])
    for day in days:
        world.database.run(rollups.roll_up_day(day, world.now))
    both_are_ready = threading.Barrier(2)

    def building(day: date) -> Script[int]:
        # Postgres ends no deadlock here: a wait for the other's lock that never ends fails instead.
        yield from Query("set local deadlock_timeout = '1h'; set local lock_timeout = '10s'", {}, len)
        built = yield from held_up(rollups.build_day(day, world.now), rollups.SQL["build_day"], both_are_ready)
        return built.activities

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda day: world.database.run(building(day)), days)) == [1, 1]


def held_up(script: Script[RolledUp], statement: str, barrier: threading.Barrier) -> Script[RolledUp]:
    """The script, which waits for the other ones of the barrier before that statement."""
    query = next(script)
    while True:
        if query.statement == statement:
            barrier.wait(10)
        rows = yield query
        try:
            query = script.send(rows)
        except StopIteration as end:
            return end.value


def test_acts_taken_back_are_taken_off(world: World) -> None:
    world.empty()
    model = world.entities[Counted.MODEL][0]
    for amount in (1, 1, -1):
        world.database.run(activity.count_one("test", Counted.MODEL, model, Metric.THUMBS_UP, amount))
    today = datetime.now(UTC)
    world.database.run(rollups.roll_up_day(today.date(), today))
    totals = world.database.run(rollups.totals(Counted.MODEL, model, Metric.THUMBS_UP))
    assert totals == Totals(day=1, week=1, month=1, year=1, all_time=1)
    assert world.database.run(rollups.totals(Counted.USER, 1, Metric.FOLLOW)) == Totals()
