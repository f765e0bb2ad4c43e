"""When a reader is notified: quiet hours and digests on its own clocks, and the pauses between tries. Pure."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec

from storage.records.notifications.notifications import Frequency


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """When a reader is not to be woken: from `start` to `end` on the clocks of `zone` (an IANA name)."""

    zone: str
    start: time
    end: time


def quiet_until(quiet: QuietHours | None, now: datetime) -> datetime | None:
    """The moment (UTC) when the quiet hours that `now` lies in end; None outside them.

    Computed when something is to be sent, from the reader's clocks on that day. Where clocks change within them, quiet
    hours are never shorter than asked: an hour that comes twice ends with its second, one that is left out counts.
    """
    if quiet is None or quiet.start == quiet.end:
        return None
    zone = ZoneInfo(quiet.zone)
    today = now.astimezone(zone).date()
    ends: list[datetime] = []
    for day in (today - timedelta(days=1), today):
        last = day if quiet.start < quiet.end else day + timedelta(days=1)
        begin, end = min(_moments(day, quiet.start, zone)), max(_moments(last, quiet.end, zone))
        if begin <= now < end:
            ends.append(end)
    return max(ends, default=None)


def _moments(day: date, clock: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Both readings of a clock's time: they differ where clocks change."""
    local = datetime.combine(day, clock, zone)
    return local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)


DIGEST_HOUR = 8
"""Daily digests leave at this hour of the reader's clocks."""


def digest_time(frequency: Frequency, zone: str, now: datetime) -> datetime:
    """When what came up at `now` is delivered: at once, at the next full hour, or at eight on the reader's clocks."""
    match frequency:
        case Frequency.HOURLY:
            return now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        case Frequency.DAILY:
            place = ZoneInfo(zone)
            today = now.astimezone(place).date()
            days = (today + timedelta(days=ahead) for ahead in range(3))
            moments = (max(_moments(day, time(DIGEST_HOUR), place)) for day in days)
            return next(moment for moment in moments if moment > now)
        case Frequency.NOW | Frequency.NEVER:
            return now


RETRY_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0)
"""Pauses after each failed try of a sending, 10 % more or less. After the last try it is dead: some 34 hours in all."""
JITTER = 0.1
MAX_ATTEMPTS = len(RETRY_SECONDS) + 1


def retry_pause(attempts: int, chance: random.Random) -> float | None:
    """Seconds until the next try after `attempts` of them failed; None when that was the last."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return RETRY_SECONDS[attempts - 1] * chance.uniform(1 - JITTER, 1 + JITTER)
