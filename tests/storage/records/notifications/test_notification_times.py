"""When a reader is notified: quiet hours and digests across both changes of clocks, and the pauses between tries."""

from __future__ import annotations

import random
from datetime import UTC, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.records.notifications.notification_times import (
    MAX_ATTEMPTS,
    RETRY_SECONDS,
    QuietHours,
    digest_time,
    quiet_until,
    retry_pause,
)
from storage.records.notifications.notifications import Frequency

BERLIN = QuietHours(zone="Europe/Berlin", start=time(22), end=time(7))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-07-01T19:59", None),  # 21:59 on the clocks
        ("2026-07-01T20:00", "2026-07-02T05:00"),
        ("2026-07-02T04:59", "2026-07-02T05:00"),
        ("2026-07-02T05:00", None),
        ("2026-12-01T20:00", None),  # the same moment in winter is 21:00
        ("2026-12-01T21:00", "2026-12-02T06:00"),
        ("2027-03-27T21:30", "2027-03-28T05:00"),  # the night that lacks an hour: it ends by the new clocks
        ("2027-03-28T05:00", None),
        ("2026-10-24T20:30", "2026-10-25T06:00"),  # the night that has one more
        ("2026-10-25T05:30", "2026-10-25T06:00"),
    ],
)
def test_quiet_hours_follow_the_readers_clocks(now: str, until: str | None):
    assert quiet_until(BERLIN, utc(now)) == (until and utc(until))


def test_quiet_hours_are_never_shorter_than_asked_where_clocks_change_within_them():
    twice = QuietHours(zone="Europe/Berlin", start=time(1), end=time(2, 30))  # 02:30 comes twice
    assert quiet_until(twice, utc("2026-10-24T23:30")) == utc("2026-10-25T01:30")
    missing = QuietHours(zone="Europe/Berlin", start=time(1), end=time(2, 30))  # 02:30 does not come
    assert quiet_until(missing, utc("2027-03-28T00:30")) == utc("2027-03-28T01:30")
    begins = QuietHours(zone="Europe/Berlin", start=time(2, 30), end=time(5))
    assert quiet_until(begins, utc("2027-03-28T01:00")) == utc("2027-03-28T03:00")


def test_who_has_no_quiet_hours_is_never_left_waiting():
    same = QuietHours(zone="UTC", start=time(5), end=time(5))
    assert quiet_until(None, utc("2026-07-01T05:00")) is quiet_until(same, utc("2026-07-01T05:00")) is None


@given(
    moment=st.datetimes(min_value=datetime(2026, 1, 1), max_value=datetime(2028, 1, 1)),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/Sao_Paulo", "Australia/Lord_Howe", "Pacific/Apia"]),
    start=st.times(),
    end=st.times(),
)
def test_after_the_end_of_quiet_hours_nothing_is_quiet(moment: datetime, zone: str, start: time, end: time):
    quiet = QuietHours(zone=zone, start=start.replace(microsecond=0), end=end.replace(microsecond=0))
    now = moment.replace(tzinfo=UTC)
    until = quiet_until(quiet, now)
    assert until is None or now < until <= now + timedelta(hours=25)
    assert until is None or quiet.start > quiet.end or quiet_until(quiet, until) is None


@pytest.mark.parametrize(
    ("frequency", "now", "due"),
    [
        (Frequency.NOW, "2026-07-01T10:11", "2026-07-01T10:11"),
        (Frequency.HOURLY, "2026-07-01T10:00", "2026-07-01T11:00"),
        (Frequency.DAILY, "2026-07-01T05:59", "2026-07-01T06:00"),
        (Frequency.DAILY, "2026-07-01T06:00", "2026-07-02T06:00"),
        (Frequency.DAILY, "2027-03-27T12:00", "2027-03-28T06:00"),  # eight in summer time, on the first day of it
        (Frequency.DAILY, "2026-10-24T12:00", "2026-10-25T07:00"),
    ],
)
def test_digests_leave_on_the_readers_clocks(frequency: Frequency, now: str, due: str):
    assert digest_time(frequency, "Europe/Berlin", utc(now)) == utc(due)


def test_pauses_follow_the_schedule_within_a_tenth_and_end():
    chance = random.Random(1)
    for attempts, seconds in enumerate(RETRY_SECONDS, start=1):
        pauses = [retry_pause(attempts, chance) for _ in range(200)]
        assert all(pause is not None and 0.9 * seconds <= pause <= 1.1 * seconds for pause in pauses)
        assert len(set(pauses)) > 100
    assert retry_pause(MAX_ATTEMPTS, chance) is None
