"""Leaderboards: whatever was counted, a board is what a plain count of its acts returns, and it is read whole or
not."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.errors import Refused
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Database, Query
from storage.postgres.metrics import activity, leaderboards, rollups
from storage.records.accounts.accounts import Account
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.leaderboards import BOARDS, Edition, Leaderboard, Place
from storage.settings import PostgresSettings
from tests.conftest import fresh_database
from tests.storage.makers import a_published_model, an_account, an_image, boards_of

DAY = date(2026, 6, 10)
UNTIL = datetime(2026, 6, 9, 22, tzinfo=UTC)
NOW = datetime(2026, 6, 9, 22, 30, tzinfo=UTC)
BEFORE = DAY - timedelta(days=1)
WEEK = BOARDS["creators-week"]
Work = tuple[Counted, int]


@dataclass
class World:
    """Creators with works, and every act that was counted about them. `hidden` are works that nobody finds."""

    database: Database
    accounts: dict[str, Account] = field(default_factory=dict)
    owners: dict[Work, str] = field(default_factory=dict)
    hidden: set[Work] = field(default_factory=set)
    acts: list[Act] = field(default_factory=list)

    def creator(self, name: str, joined: datetime, listed: int = 1, images: int = 2) -> None:
        """Somebody with listed models, each with a version and images."""
        account_id = an_account(self.database, name)
        joining = "update accounts set created_at = %(at)s where id = %(id)s"
        self.database.run(Query(joining, {"at": joined, "id": account_id}, len))
        [self.accounts[name]] = self.database.run(accounts.accounts({account_id})).values()
        self.owners[(Counted.USER, self.accounts[name].number)] = name
        for number in range(listed):
            model = a_published_model(self.database, account_id, f"{name} {number}")
            self.owners[(Counted.MODEL, model.id)] = name
            for version in self.database.run(catalog.versions([model.id])):
                self.owners[(Counted.VERSION, version.id)] = name
            for _ in range(images):
                self.owners[(Counted.IMAGE, an_image(self.database, model))] = name

    def count(self, acts: Sequence[tuple[Work, Metric, datetime, int]]) -> None:
        """Count acts, each when it happens, and roll them up as of `NOW`."""
        for (entity, entity_id), metric, at, amount in acts:
            key = f"{len(self.acts)}"
            act = Act(key=key, entity=entity, entity_id=entity_id, metric=metric, occurred_at=at, amount=amount)
            self.acts.append(act)
        for day in sorted({act.occurred_at.date() for act in self.acts}):
            theirs = [act for act in self.acts if act.occurred_at.date() == day]
            end = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
            self.database.run(activity.ingest("test", theirs, now=end))
        for day in sorted({*self.database.run(rollups.waiting_days()), NOW.date()}):
            self.database.run(rollups.roll_up_day(day, NOW))

    def show(self, board: str = WEEK.id, day: date = DAY, **page: int) -> Edition:
        """A published board."""
        found = self.database.run(leaderboards.show(board, day, latest=False, **page))
        assert found is not None
        return found

    def ranks(self, board: str = WEEK.id, day: date = DAY) -> dict[str, tuple[int, int | None]]:
        """Each creator's rank, and how it moved."""
        return {place.name: (place.rank, place.delta) for place in self.show(board, day).places}

    def plainly(self, board: Leaderboard, day: date) -> list[dict[str, Any]]:
        """The board, counted act by act."""
        since, until = board.window(day)
        points = {(rule.entity, rule.metric): rule.points for rule in board.rules}
        works: dict[str, Counter[Work]] = {}
        counts: dict[str, Counter[Metric]] = {}
        for act in self.acts:
            work = (act.entity, act.entity_id)
            name = self.owners[work]
            if work in self.hidden or (act.entity, act.metric) not in points or not since <= act.occurred_at < until:
                continue
            works.setdefault(name, Counter())[work] += act.amount * points[act.entity, act.metric]
            counts.setdefault(name, Counter())[act.metric] += act.amount
        eligible = [name for name in works if self.eligible(board, name, until)]
        scores = {name: self.score(board, works[name]) for name in eligible}
        rows = [
            {"rank": 1 + sum(other > score for other in scores.values()), "score": score, "name": name}
            for name, score in scores.items()
            if score > 0
        ]
        rows.sort(key=lambda row: (row["rank"], self.accounts[row["name"]].number))
        return [{**row, "counts": dict(counts[row["name"]])} for row in rows]

    def score(self, board: Leaderboard, works: Counter[Work]) -> int:
        """A creator's points; of a board that weights works, the best ones'."""
        ranked = sorted(works.values(), reverse=True)
        if board.best_of is None:
            return sum(ranked)
        weights = [round(1000 * (1 - math.sqrt(n / board.best_of))) if n < board.best_of else 0 for n in range(99)]
        return sum(points * weight for points, weight in zip(ranked, weights, strict=False)) // 1000

    def eligible(self, board: Leaderboard, name: str, until: datetime) -> bool:
        """Whether an account may be on a board."""
        account = self.accounts[name]
        listed = any(self.owners[work] == name for work in self.owners if work[0] is Counted.MODEL) and name != "gone"
        oldest = until - timedelta(days=board.joined_within_days or 100_000)
        return listed and account.status == "active" and account.created_at >= oldest


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    """A database for the whole module."""
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


@pytest.fixture(scope="module")
def world(database: Database) -> World:
    """A month of random acts, and some at the very edges of what boards score; nothing of it is changed."""
    world = World(database)
    old, young = UNTIL - timedelta(days=200), UNTIL - timedelta(days=90)
    for name, joined, listed in (("ada", old, 2), ("bo", old, 1), ("cy", young, 2), ("di", young, 1), ("ed", old, 1)):
        world.creator(name, joined, listed)
    world.creator("flo", UNTIL - timedelta(days=90, seconds=1))
    world.creator("gone", old)
    world.creator("reader", old, listed=0)
    world.creator("banned", old)
    draw = random.Random(7)
    works = list(world.owners)
    metrics = {
        Counted.MODEL: [Metric.THUMBS_UP, Metric.THUMBS_DOWN, Metric.VIEW],
        Counted.VERSION: [Metric.DOWNLOAD, Metric.GENERATION, Metric.THUMBS_UP],
        Counted.IMAGE: [Metric.LIKE, Metric.HEART, Metric.DISLIKE],
        Counted.USER: [Metric.FOLLOW, Metric.TIP],
    }
    acts: list[tuple[Work, Metric, datetime, int]] = []
    for _ in range(600):
        work = draw.choice(works)
        at = UNTIL - timedelta(days=draw.choice([0, 1, 2, 3, 6, 7, 9, 29, 30, 31]) + draw.random())
        acts.append((work, draw.choice(metrics[work[0]]), at, draw.choice([1, 1, 1, -1])))
    instant, downloaded = timedelta(microseconds=1), next(work for work in works if work[0] is Counted.VERSION)
    for edge in (UNTIL, UNTIL - timedelta(days=7), UNTIL - timedelta(days=30), UNTIL - timedelta(hours=22)):
        acts += [(downloaded, Metric.DOWNLOAD, at, 1) for at in (edge - instant, edge)]
    world.count(acts)
    for work, name in world.owners.items():
        if name == "gone" and work[0] is not Counted.USER:
            world.hidden.add(work)
        if name == "gone" and work[0] is Counted.MODEL:
            database.run(models.unpublish(database.run(catalog.model_by_id(work[1]))))
    private = next(work for work, name in world.owners.items() if name == "ada" and work[0] is Counted.IMAGE)
    world.hidden.add(private)
    database.run(Query("update images set gone_at = now() where id = %(id)s", {"id": private[1]}, len))
    world.accounts["banned"] = database.run(accounts.ban(world.accounts["banned"], "spam"))
    return world


TWO_BEST = msgspec.structs.replace(BOARDS["pictures-month"], id="two-best", best_of=2)


@pytest.mark.parametrize("board", [*BOARDS.values(), TWO_BEST], ids=lambda board: board.id)
@pytest.mark.parametrize("day", [DAY, DAY - timedelta(days=1), DAY - timedelta(days=5)])
def test_a_board_is_what_a_plain_count_of_its_acts_gives(world: World, board: Leaderboard, day: date) -> None:
    prepared = world.database.run(leaderboards.prepare(board, day))
    world.database.run(leaderboards.publish(day, [prepared.edition_id], NOW))
    found = world.show(board.id, day)
    expected = world.plainly(board, day)
    assert len(expected) > 1
    assert [shown(place) for place in found.places] == expected
    assert (found.total, found.definition, prepared.places) == (len(expected), board, len(expected))
    assert (found.since, found.until) == board.window(day)


def shown(place: Place) -> dict[str, Any]:
    return {"rank": place.rank, "score": place.score, "name": place.name, "counts": place.counts}


@pytest.fixture(scope="module")
def race(postgres_server: EmbeddedPostgres, migrated_template: str) -> Iterator[World]:
    """Four creators, by how often they were downloaded: until the first day's boards, and until the next day's."""
    downloads = {"ada": (3, 0), "bo": (2, 1), "cy": (2, 5), "di": (0, 1)}
    with (
        fresh_database(postgres_server, migrated_template) as url,
        Database(PostgresSettings(url=SecretStr(url))) as database,
    ):
        world = World(database)
        for name in downloads:
            world.creator(name, UNTIL - timedelta(days=9), images=0)
        versions = {name: work for work, name in world.owners.items() if work[0] is Counted.VERSION}
        first, then = UNTIL - timedelta(days=1, hours=3), UNTIL - timedelta(hours=1)
        world.count(
            [
                (versions[name], Metric.DOWNLOAD, at, 1)
                for name, numbers in downloads.items()
                for at, number in zip((first, then), numbers, strict=True)
                for _ in range(number)
            ]
        )
        for day in (BEFORE, DAY):
            boards_of(database, day, NOW)
        yield world


def test_equal_scores_share_a_rank_and_ranks_move_since_the_day_before(race: World) -> None:
    assert race.ranks(day=BEFORE) == {"ada": (1, None), "bo": (2, None), "cy": (2, None)}
    assert race.ranks() == {"cy": (1, 1), "ada": (2, -1), "bo": (2, 0), "di": (4, None)}
    page = race.show(offset=1, limit=2)
    assert [place.name for place in page.places] == ["ada", "bo"]
    assert (page.total, page.previous_day, race.show(day=BEFORE).previous_day) == (4, BEFORE, None)


def test_a_tie_at_the_end_of_a_board_is_decided_for_who_joined_first(
    race: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leaderboards, "PLACES", 2)
    race.database.run(leaderboards.prepare(WEEK, BEFORE))
    statement = """select name from leaderboard_places join accounts on id = account_id
                    where edition_id = (select max(id) from leaderboard_editions) order by number"""
    assert race.database.run(Query(statement, {}, lambda rows: [row["name"] for row in rows])) == ["ada", "bo"]


def test_who_is_banned_later_leaves_every_day_and_comes_back_with_the_lifted_ban(race: World) -> None:
    before = race.ranks()
    race.database.run(accounts.ban(race.accounts["cy"], "spam"))
    assert race.ranks() == {"ada": (1, 0), "bo": (1, 1), "di": (3, None)}
    assert race.ranks(day=BEFORE) == {"ada": (1, None), "bo": (2, None)}
    assert race.show().total == 3
    race.database.run(accounts.lift_ban(race.accounts["cy"]))
    assert race.ranks() == before


def test_what_is_prepared_is_read_only_when_the_day_is_published_whole(race: World) -> None:
    show = leaderboards.show(WEEK.id, DAY, latest=False)
    was = race.database.run(show)
    week, month = (race.database.run(leaderboards.prepare(BOARDS[name], DAY)) for name in (WEEK.id, "creators-month"))
    assert race.database.run(show) == was
    race.database.run(leaderboards.prepare(WEEK, BEFORE - timedelta(days=1)))
    assert race.database.run(leaderboards.show(WEEK.id, BEFORE - timedelta(days=1), latest=True)) is None
    assert {board.first for board in race.database.run(leaderboards.published(DAY))} == {BEFORE}
    race.database.run(leaderboards.prepare(WEEK, DAY))  # as the next run does when one has died
    with pytest.raises(Refused, match="1 of the prepared boards of 2026-06-10 are gone"):
        race.database.run(leaderboards.publish(DAY, [week.edition_id, month.edition_id], NOW))
    assert race.database.run(show) == was
    boards_of(race.database, DAY, NOW + timedelta(hours=1))
    again = race.show()
    assert (again.places, again.published_at) == (was and was.places, NOW + timedelta(hours=1))
    editions = race.database.run(Query("select 1 from leaderboard_editions where day = '2026-06-10'", {}, len))
    assert editions == len(BOARDS)


def test_a_day_whose_acts_are_not_summed_or_not_kept_is_refused(race: World) -> None:
    with pytest.raises(Refused, match="until 2026-06-10 22:00 UTC, which roll-up-metrics has not summed yet"):
        race.database.run(leaderboards.prepare(WEEK, DAY + timedelta(days=1)))
    race.database.run(Query("drop table activity_hours_20260608", {}, len))
    with pytest.raises(Refused, match="The hours of 2026-06-08 are not kept any more"):
        race.database.run(leaderboards.prepare(WEEK, BEFORE))
    assert race.ranks(day=BEFORE) == {"ada": (1, None), "bo": (2, None), "cy": (2, None)}
