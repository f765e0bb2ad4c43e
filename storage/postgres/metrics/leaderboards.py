"""Leaderboards: editions are prepared beside what is read, and all of a day are published together.

A reader sees a whole edition or the one before it, whatever dies between. Who is banned is on no board, from that
moment on, nor on those of days that are over: the others move up as if they had never been there, and back again when
the ban is lifted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import msgspec
from psycopg.types.json import Jsonb

from storage.errors import Refused
from storage.postgres.connection import Query, Script, column, count, load_statements, many, maybe
from storage.postgres.metrics import freshness
from storage.records.metrics.leaderboards import PLACES, RANK, WHOLE, Edition, Leaderboard, Prepared, Published
from storage.records.metrics.rollups import ROLL_UP

SQL = load_statements(__file__)


def prepare(board: Leaderboard, day: date) -> Script[Prepared]:
    """Write the edition of a board and a day; nobody reads it yet.

    Raises Refused while roll-ups have not summed what it scores, and when sums that it needs are not kept any more.
    """
    since, until = board.window(day)
    [counted] = yield from column(SQL["is_counted"], {"roll_up": ROLL_UP, "until": until}, bool)
    if not counted:
        raise Refused(f"The boards of {day} score acts until {until:%F %R} UTC, which {ROLL_UP} has not summed yet.")
    lost = yield from column(SQL["lost_hours"], {"days": [since.date(), until.date()]}, date)
    if lost:
        raise Refused(f"The hours of {lost[0]} are not kept any more: a board that they belong to cannot be made.")
    yield from Query(SQL["room"], {}, len)
    head = {"board": board.id, "day": day, "since": since, "until": until}
    yield from count(SQL["clear"], head)
    definition = Jsonb(msgspec.to_builtins(board))
    [edition] = yield from column(SQL["open"], {**head, "definition": definition}, int)
    places = yield from count(SQL["rank"], _scoring(board, since, until) | {"edition_id": edition})
    return Prepared(edition_id=edition, board=board.id, places=places)


def _scoring(board: Leaderboard, since: datetime, until: datetime) -> dict[str, Any]:
    joined = board.joined_within_days
    return {
        "since": since,
        "until": until,
        "first_day": since.date(),
        "first_midnight": datetime.combine(since.date() + timedelta(days=1), time(tzinfo=UTC)),
        "last_day": until.date(),
        "last_midnight": datetime.combine(until.date(), time(tzinfo=UTC)),
        "entities": [rule.entity for rule in board.rules],
        "metrics": [rule.metric for rule in board.rules],
        "points": [rule.points for rule in board.rules],
        "weights": board.weights(),
        "whole": WHOLE,
        "joined_since": None if joined is None else until - timedelta(days=joined),
        "places": PLACES,
    }


def publish(day: date, editions: Sequence[int], now: datetime) -> Script[None]:
    """From now on these editions are what is read of their boards on that day: all of them, or none.

    Raises Refused when one of them is gone: somebody else has prepared the day meanwhile.
    """
    parameters = {"editions": list(editions), "day": day, "now": now}
    # Before the new ones: a unique index allows one published edition of a board and day.
    yield from count(SQL["replace"], parameters)
    published = yield from count(SQL["publish"], parameters)
    if published != len(editions):
        raise Refused(f"{len(editions) - published} of the prepared boards of {day} are gone: make them again.")
    yield from freshness.finished(RANK, day, now)


def published(today: date) -> Query[list[Published]]:
    """Of each board that was published, from which to which day it can be read."""
    return many(SQL["published"], {"today": today}, Published)


def show(board: str, day: date, *, latest: bool, offset: int = 0, limit: int = PLACES) -> Query[Edition | None]:
    """The board of a day, or the `latest` up to it; None where there is none."""
    parameters = {"board": board, "day": day, "latest": latest, "offset": offset, "limit": limit}
    return maybe(SQL["show"], parameters, Edition)
