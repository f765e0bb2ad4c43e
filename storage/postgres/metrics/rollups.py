"""Roll-ups of activity. Each script is one transaction, done whole or not at all; doing it again changes nothing.

A cell of an hour or day is always summed again from what it holds. Totals of the periods move by what cells change by,
and by the days that periods gain and lose, so that a run costs what is new and not what was ever counted. `build_day`
marks them stale, and `settle_totals` rebuilds them from every day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import msgspec

from storage.errors import Refused
from storage.postgres.connection import Query, Script, column, count, load_statements, many, one
from storage.postgres.locks import lock_number
from storage.postgres.metrics import freshness
from storage.records.metrics.activity import Counted, Metric
from storage.records.metrics.rollups import (
    ROLL_UP,
    Compared,
    CorrectedTotal,
    EntityTotals,
    RolledUp,
    RollupState,
    Totals,
    moved_days,
)

SQL = load_statements(__file__)

_TOTALS = lock_number(f"{ROLL_UP} totals")
"""Held alone by what moves totals, and together by those who build days."""


SAMPLE = 500
"""Entities whose totals one comparison looks at; the next one goes on after them, and round again."""


class _Hours(msgspec.Struct, frozen=True, kw_only=True):
    batches: int
    activities: int
    hour_cells: int
    entities: list[int]


class _Days(msgspec.Struct, frozen=True, kw_only=True):
    day_cells: int = 0
    models: list[int]
    versions: list[int]
    images: list[int]


def waiting_days() -> Query[list[date]]:
    """The days that have activity which no roll-up took."""
    return column(SQL["waiting_days"], {}, date)


def state() -> Query[RollupState]:
    """Of which day totals are."""
    return one(SQL["state"], {}, RollupState, "the state of roll-ups")


def totals(entity: Counted, entity_id: int, metric: Metric) -> Script[Totals]:
    """The sums of one entity's metric; all 0 for one that nothing was counted for."""
    parameters = {"entity": entity, "entity_id": entity_id, "with_versions": False}
    found = yield from one(SQL["totals"], parameters, EntityTotals, "the state of roll-ups")
    return found.of(metric)


def taken_up(entity: Counted, entity_id: int) -> Query[EntityTotals]:
    """How an entity was used, by every metric; a model with its versions, as the catalogue counts it."""
    parameters = {"entity": entity, "entity_id": entity_id, "with_versions": entity is Counted.MODEL}
    return one(SQL["totals"], parameters, EntityTotals, "the state of roll-ups")


def roll_up_day(day: date, now: datetime) -> Script[RolledUp]:
    """Take what waits of one day into its hours, its sums, the totals of `now` and the catalogue's counts."""
    yield from _alone()
    yield from Query(SQL["room"], {}, len)
    today, was = now.date(), (yield from state()).as_of
    [begun] = yield from column(SQL["is_begun"], {"day": day}, bool)
    built = None if begun else (yield from _build(day))
    # First the totals become those of today: what `_take` adds afterwards, it adds to the periods as they are then.
    if built or was != today:
        moved = moved_days(was, today) if was else []
        turn = {"was": was or today, "today": today, "moved": moved, "begun": day if built else None}
        yield from Query(SQL["turn_totals"], turn, len)
        yield from Query(SQL["note_as_of"], {"today": today}, len)
    if built:
        touched = yield from one(SQL["entities_of_day"], {"day": day}, _Days, "entities")
        written = yield from _write_stats(touched.models, touched.versions, touched.images)
        done = msgspec.structs.replace(built, stats=written)
    else:
        done = yield from _take(day, (today - day).days)
    yield from freshness.finished(ROLL_UP, day, now)
    return done


def _take(day: date, ago: int) -> Script[RolledUp]:
    """What waits of a day, `ago` days before that of the totals, goes into the cells that it touches."""
    span = yield from Query(SQL["span"], {"day": day}, lambda rows: rows[0])
    if span["first"] is None:
        return RolledUp(day=day)
    hours = yield from one(SQL["roll_up_hours"], span, _Hours, "hours")
    days = yield from one(SQL["roll_up_days"], {"day": day, "ago": ago, "entities": hours.entities}, _Days, "days")
    return RolledUp(
        day=day,
        batches=hours.batches,
        activities=hours.activities,
        hour_cells=hours.hour_cells,
        day_cells=days.day_cells,
        stats=(yield from _write_stats(days.models, days.versions, days.images)),
    )


def build_day(day: date, now: datetime) -> Script[RolledUp]:
    """Sum a whole day beside what is read, index it, and put it in the old one's place; totals are stale after that.

    Several days may be built at once. Raises Refused where the day's activity was dropped.
    """
    # Shared: days may be built beside each other, but not while totals move, which reads all days.
    yield from Query(SQL["beside"], {"lock": _TOTALS}, len)
    yield from Query(SQL["alone"], {"lock": lock_number(f"{ROLL_UP} {day}")}, len)
    yield from Query(SQL["room"], {}, len)
    built = yield from _build(day)
    yield from Query(SQL["note_stale"], {}, len)
    yield from freshness.finished(ROLL_UP, day, now)
    return built


def _build(day: date) -> Script[RolledUp]:
    batches = yield from count(SQL["take_day"], {"day": day})
    # Before the look whether it is kept: a day on which nothing happened has no table, and is no lost day.
    yield from count(SQL["make_source"], {"day": day})
    [kept] = yield from column(SQL["is_kept"], {"day": day}, bool)
    if not kept:
        raise Refused(f"The activity of {day} is not kept any more: its sums are all that is left of it.")
    made = yield from Query(SQL["build_day"], {"day": day}, lambda rows: rows[0])
    return RolledUp(day=day, whole=True, batches=batches, **made)


def settle_totals(now: datetime) -> Script[RolledUp]:
    """Rebuild the totals of `now` from every day, and bring the catalogue's counts after them."""
    today = now.date()
    yield from _alone()
    yield from Query(SQL["room"], {}, len)
    yield from Query(SQL["build_totals"], {"today": today}, len)
    yield from Query(SQL["note_fresh"], {"today": today}, len)
    return RolledUp(day=today, whole=True, stats=(yield from _write_stats(None, None, None)))


def compare(entities: int = SAMPLE) -> Script[Compared]:
    """Compare the totals of the next entities, and the catalogue's counts, with the days; repair what differs.

    Nothing is compared while somebody rolls up, or while totals are to be rebuilt anyway.
    """
    [free] = yield from column(SQL["try_alone"], {"lock": _TOTALS}, bool)
    known = yield from state()
    if not free or known.stale or known.as_of is None:
        return Compared()
    sample = yield from Query(SQL["next_sample"], {"entities": entities}, lambda rows: rows[0])
    totals = yield from many(SQL["correct_totals"], sample, CorrectedTotal)
    touched = yield from one(SQL["entities_between"], sample, _Days, "entities")
    counts = yield from _write_stats(touched.models, touched.versions, touched.images)
    yield from Query(SQL["note_compared"], sample, len)
    return Compared(totals=tuple(totals), counts=counts)


def _alone() -> Query[int]:
    return Query(SQL["alone"], {"lock": _TOTALS}, len)


def _write_stats(
    models: Sequence[int] | None, versions: Sequence[int] | None, images: Sequence[int] | None
) -> Script[int]:
    """Write the counts of these, or of everything, where they changed; triggers place and announce them."""
    parameters: dict[str, Any] = {"models": models, "versions": versions, "images": images}
    written = 0
    for name in ("model_stats", "version_stats", "image_stats"):  # a model's event then covers its versions too
        written += yield from count(SQL[name], parameters)
    return written
