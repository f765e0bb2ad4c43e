"""Leaderboards at the door: today's, those of days that are over, and what is said about days that have none."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import httpx
import pytest

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog
from storage.postgres.metrics import activity, rollups
from storage.records.accounts.accounts import Role
from storage.records.metrics.activity import Act, Counted, Metric
from storage.records.metrics.leaderboards import BOARDS
from tests.platform_api.door import ALL, Door
from tests.storage.makers import a_published_model, boards_of

NOW = datetime.now(UTC)
TODAY = NOW.date()
WEEK = "/api/v1/leaderboards/creators-week"
DOWNLOADS = {"ada": (2, 1), "bo & co": (1, 3), "cy": (1, 0)}
"""Of whom, how often: three days ago, and the day before yesterday."""


def at(ago: int) -> datetime:
    return datetime(TODAY.year, TODAY.month, TODAY.day, 12, tzinfo=UTC) - timedelta(days=ago)


@pytest.fixture(scope="module")
def boarded(shared_door: Door) -> Door:
    """A door with the boards of three days, of which the day before the first has none."""
    database = shared_door.database
    for name, numbers in DOWNLOADS.items():
        model = a_published_model(database, shared_door.account(name), name)
        [version] = database.run(catalog.versions([model.id]))
        for ago, number in zip((3, 2), numbers, strict=True):
            acts = [
                Act(
                    key=f"{name} {ago} {n}",
                    entity=Counted.VERSION,
                    entity_id=version.id,
                    metric=Metric.DOWNLOAD,
                    occurred_at=at(ago),
                )
                for n in range(number)
            ]
            database.run(activity.ingest("test", acts, now=at(ago)))
    for day in sorted({*database.run(rollups.waiting_days()), TODAY}):
        database.run(rollups.roll_up_day(day, NOW))
    for ago in (2, 1, 0):
        boards_of(database, TODAY - timedelta(days=ago), NOW)
    return shared_door


def ranks(page: httpx.Response) -> list[tuple[object, ...]]:
    """Who stands where, with what."""
    wanted = ("username", "rank", "previousRank", "delta", "score", "counts")
    return [tuple(item[name] for name in wanted) for item in page.json()["items"]]


def test_the_list_says_what_is_scored_and_which_days_there_are(boarded: Door) -> None:
    items = boarded.client("").get("/api/v1/leaderboards").json()["items"]
    assert [item["id"] for item in items] == list(BOARDS)
    for item in items:
        assert (item["firstDate"], item["latestDate"]) == (str(TODAY - timedelta(days=2)), str(TODAY))
    assert {"entity": "version", "metric": "download", "points": 1} in items[0]["rules"]
    assert (items[0]["days"], items[3]["bestOf"], items[2]["joinedWithinDays"]) == (7, 120, 90)
    assert httpx.get(items[0]["link"]).json()["title"] == "Creators of the week"


def test_a_board_has_ranks_scores_and_what_it_scores(boarded: Door) -> None:
    client = boarded.client("")
    response = client.get(WEEK)
    assert ranks(response) == [
        ("bo & co", 1, 1, 0, 4, {"download": 4}),
        ("ada", 2, 2, 0, 3, {"download": 3}),
        ("cy", 3, 3, 0, 1, {"download": 1}),
    ]
    board = response.json()
    assert (board["date"], board["previousDate"]) == (str(TODAY), str(TODAY - timedelta(days=1)))
    assert board["from"] == f"{TODAY - timedelta(days=8)}T22:00:00Z"
    assert board["to"] == f"{TODAY - timedelta(days=1)}T22:00:00Z"
    assert len(client.get(board["items"][0]["link"]).json()["items"]) == 1
    assert client.get(WEEK, headers={"If-None-Match": response.headers["etag"]}).status_code == 304


def test_days_that_are_over_keep_their_board_and_the_next_one_is_compared_with_it(boarded: Door) -> None:
    client, first = boarded.client(""), TODAY - timedelta(days=2)
    past = client.get(WEEK, params={"date": str(first)})
    assert [row[:3] for row in ranks(past)] == [("ada", 1, None), ("bo & co", 2, None), ("cy", 2, None)]
    assert past.json()["previousDate"] is None
    then = client.get(WEEK, params={"date": str(first + timedelta(days=1))})
    assert [row[:4] for row in ranks(then)] == [("bo & co", 1, 2, 1), ("ada", 2, 1, -1), ("cy", 3, 2, -1)]
    assert then.json()["previousDate"] == str(first)


def test_a_long_board_comes_in_pages(boarded: Door) -> None:
    client = boarded.client("")
    second = client.get(WEEK, params={"limit": 1, "page": 2}).json()
    assert ([item["username"] for item in second["items"]], second["metadata"]["totalPages"]) == (["ada"], 3)
    assert httpx.get(second["metadata"]["nextPage"]).json()["items"][0]["username"] == "cy"


def test_who_is_banned_is_gone_from_every_day_with_the_next_request(boarded: Door) -> None:
    boarded.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    moderator, client = boarded.client(boarded.new_key(*ALL, account="keeper")), boarded.client("")
    number = client.get(WEEK).json()["items"][0]["userId"]
    assert moderator.post(f"/api/v1/users/{number}/ban", json={"reason": "spam"}).status_code == 200
    assert [row[:2] for row in ranks(client.get(WEEK))] == [("ada", 1), ("cy", 2)]
    past = client.get(WEEK, params={"date": str(TODAY - timedelta(days=2))})
    assert [row[:2] for row in ranks(past)] == [("ada", 1), ("cy", 2)]
    assert moderator.post(f"/api/v1/users/{number}/unban").status_code == 200
    assert ranks(client.get(WEEK))[0][:2] == ("bo & co", 1)


@pytest.mark.parametrize("text", ["yesterday", "20260601", "2026-02-30", "2026-W01-1", "tomorrow"])
def test_a_date_that_is_none_or_has_not_come_is_refused_with_what_to_send(boarded: Door, text: str) -> None:
    today = datetime.now(UTC).date()  # the suite may have begun on another day
    response = boarded.client("").get(
        WEEK, params={"date": str(today + timedelta(days=1)) if text == "tomorrow" else text}
    )
    assert response.status_code == 422
    assert response.json()["errors"]["date"].startswith(f"expected a UTC day such as {today}, and none after it")


def test_a_day_or_a_board_that_there_is_not_says_which_there_are(boarded: Door) -> None:
    client = boarded.client("")
    never = client.get(WEEK, params={"date": str(date(1, 1, 1))})
    assert (never.status_code, never.json()["code"]) == (404, "not_found")
    assert "has no board of 0001-01-01. /api/v1/leaderboards says which it has" in never.json()["detail"]
    unknown = client.get("/api/v1/leaderboards/kings")
    assert unknown.status_code == 404
    assert "There are: creators-week, creators-month" in unknown.json()["detail"]


def test_before_the_first_midnight_a_board_says_when_it_comes(door: Door) -> None:
    client = door.client("")
    assert {item["latestDate"] for item in client.get("/api/v1/leaderboards").json()["items"]} == {None}
    assert "has no board yet; the first is ready at the next midnight UTC" in client.get(WEEK).json()["detail"]
