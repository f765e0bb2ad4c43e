"""Backfills: days that are rebuilt, and which of them are done, so that a broken-off one goes on."""

from __future__ import annotations

from datetime import date

import msgspec

from storage.postgres.connection import Query, Script, column, load_statements

SQL = load_statements(__file__)


class Backfill(msgspec.Struct, frozen=True, kw_only=True):
    """A backfill, and the days of it that are left, the oldest first."""

    id: int
    left: list[date]


def begin(flow: str, first: date, last: date) -> Script[Backfill]:
    """The backfill of these days: the one that broke off, or a new one."""
    days = {"first": first, "last": last}
    [number] = yield from column(SQL["open"], {"flow": flow, **days}, int)
    yield from column(SQL["list_days"], {"id": number, **days}, date)
    return Backfill(id=number, left=(yield from column(SQL["left"], {"id": number}, date)))


def finish_day(backfill_id: int, day: date) -> Query[list[date]]:
    """A day is done, with the caller's transaction."""
    return column(SQL["finish_day"], {"id": backfill_id, "day": day}, date)


def finish(backfill_id: int) -> Query[list[int]]:
    """Every day is done: the same command begins a new backfill from here on."""
    return column(SQL["finish"], {"id": backfill_id}, int)
