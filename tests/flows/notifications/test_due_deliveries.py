"""What comes in bursts interrupts a reader once: it waits a moment for more of its family, and no longer than that."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.notifications import deliver as delivering
from flows.notifications.deliver import deliver
from flows.notifications.due_deliveries import settled_at
from storage.postgres.notifications import preferences, sendings
from storage.postgres.notifications.deliveries import Due
from storage.postgres.notifications.preferences import Clocks
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import (
    TYPES,
    Content,
    Frequency,
    JobFailedNotice,
    Mentioned,
    NewFollower,
    SystemNotice,
)
from tests.flows.notifications.conftest import DONE, Notifier, Post

MINUTE = timedelta(seconds=60)


def types(post: Post, channel: Channel, notifier: Notifier) -> list[list[str]]:
    """What was in each call on a channel, in the order of the calls."""
    of_channel = {row["id"] for row in notifier.rows("select id from sendings where channel = %(c)s", c=channel)}
    return [sorted(item.type for item in message.items) for message in post.messages if message.id in of_channel]


@pytest.fixture
def post() -> Post:
    return Post()


@pytest.fixture
def at(notifier: Notifier, post: Post, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Deliver as if so many seconds had passed."""

    def deliver_at(seconds: float) -> None:
        moment = datetime.now(UTC) + timedelta(seconds=seconds)
        monkeypatch.setattr(delivering, "utc_now", lambda: moment)
        deliver(notifier.stores, dict.fromkeys(Channel, post), workers=1)

    return deliver_at


def notify(notifier: Notifier, reader: int, *contents: Content) -> None:
    """Tell a reader some things, one after another."""
    [row] = notifier.rows("select count(*)::int as n from notifications")
    for number, content in enumerate(contents):
        notifier.notify(f"{row['n']}.{number}", content, [reader])
    notifier.fan_out()


def test_a_burst_is_one_call_for_each_family_and_webhooks_have_each_by_itself(
    notifier: Notifier, post: Post, at: Callable[[float], None]
) -> None:
    reader, comment = notifier.reader("reader"), notifier.comment()
    notifier.register(reader, Channel.PUSH, "…")
    notifier.register(reader, Channel.WEBHOOK, "…")
    notify(notifier, reader, comment, NewFollower(by="eve"), comment)
    at(0)
    assert sorted(types(post, Channel.WEBHOOK, notifier)) == [["comment"], ["comment"], ["new_follower"]]
    assert types(post, Channel.PUSH, notifier) == []
    notify(notifier, reader, Mentioned(**msgspec.structs.asdict(comment)), SystemNotice(title="Now", text="At once."))
    at(30)
    assert types(post, Channel.PUSH, notifier) == [["system"]]
    at(61)
    assert sorted(types(post, Channel.PUSH, notifier)) == [
        ["comment", "comment", "mention"],
        ["new_follower"],
        ["system"],
    ]
    notify(notifier, reader, comment)
    at(61)
    ended = notifier.rows("select state from deliveries where channel = 'push' order by id")
    assert Counter(str(row["state"]) for row in ended) == {"folded": 3, "sent": 3}


def test_what_comes_after_the_moment_waits_its_own(notifier: Notifier, post: Post, at: Callable[[float], None]) -> None:
    reader, comment = notifier.reader("reader"), notifier.comment()
    notifier.register(reader, Channel.PUSH, "…")
    notify(notifier, reader, comment)
    at(0)
    notifier.rows("update deliveries set due_at = due_at - interval '61 s' where due_at is not null returning id")
    notify(notifier, reader, comment)
    at(0)
    assert types(post, Channel.PUSH, notifier) == [["comment"]]
    at(61)
    assert types(post, Channel.PUSH, notifier) == [["comment"], ["comment"]]


def test_what_waited_for_a_paused_channel_is_told_in_one_go(
    notifier: Notifier, post: Post, at: Callable[[float], None]
) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.CHAT, "…")
    notifier.stores.database.run(sendings.pause(Channel.CHAT))
    notify(notifier, reader, DONE, DONE, JobFailedNotice(job_id=UUID(int=2), job_kind="generation", reason="Full."))
    at(0)
    notifier.rows(
        "update deliveries set created_at = created_at - interval '1 h', due_at = due_at - interval '1 h'"
        " where due_at is not null returning id"
    )
    notifier.stores.database.run(sendings.resume(Channel.CHAT))
    at(0)
    assert types(post, Channel.CHAT, notifier) == [["job_failed", "job_finished", "job_finished"]]


def test_a_moment_that_ends_in_quiet_hours_ends_with_them(
    notifier: Notifier, post: Post, at: Callable[[float], None]
) -> None:
    reader, comment = notifier.reader("reader"), notifier.comment()
    notifier.register(reader, Channel.PUSH, "…")
    clock = (datetime.now(UTC) + timedelta(seconds=30)).time().replace(microsecond=0)
    until = (datetime.now(UTC) + timedelta(hours=2)).time().replace(microsecond=0)
    notifier.stores.database.run(preferences.replace(reader, [], Clocks(zone="UTC", quiet_from=clock, quiet_to=until)))
    notify(notifier, reader, comment)
    at(0)
    at(90)
    assert post.messages == []
    at(7200)
    assert types(post, Channel.PUSH, notifier) == [["comment"]]


def test_an_operator_can_have_everything_told_at_once(
    notifier: Notifier, post: Post, at: Callable[[float], None]
) -> None:
    notifier.stores.settings.notifications.debounce_seconds = 0
    reader, comment = notifier.reader("reader"), notifier.comment()
    notifier.register(reader, Channel.PUSH, "…")
    notify(notifier, reader, comment, comment)
    at(0)
    assert types(post, Channel.PUSH, notifier) == [["comment"], ["comment"]]


def due(number: int, came: datetime) -> Due:
    """A comment for one reader."""
    return Due(
        id=number, reader=1, channel=Channel.PUSH, due_at=came, frequency=Frequency.NOW, folds=False, created_at=came,
        type="comment", unwanted=False, banned=False, endpoint="active", zone="UTC", quiet_from=None, quiet_to=None,
    )  # fmt: skip


@given(st.lists(st.integers(0, 600), min_size=1, max_size=30))
def test_nothing_waits_longer_than_the_moment_and_two_calls_lie_further_apart(seconds: list[int]):
    came = [datetime(2026, 7, 1, tzinfo=UTC) + timedelta(seconds=one) for one in sorted(seconds)]
    settled = settled_at([due(number, one) for number, one in enumerate(came)], [], MINUTE)
    assert all(one.created_at <= moment <= one.created_at + MINUTE for one, moment in settled.items())
    calls = sorted(set(settled.values()))
    assert all(later - earlier > MINUTE for earlier, later in pairwise(calls))


def test_every_type_but_news_of_the_platform_has_a_family():
    assert [name for name, kind in TYPES.items() if not kind.family] == ["system"]
