"""Old notifications are forgotten in bounded pieces, with all that became of them; what was delivered once stays
notified."""

from __future__ import annotations

import pytest

from flows.notifications.channels.protocol import Message, Outcome, PermanentFailure
from flows.notifications.deliver import deliver
from flows.upkeep.retention.row_rules import forget_notifications
from flows.upkeep.retention.sweep import begin
from storage.postgres.notifications import in_app, notifications, sendings
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import Frequency
from storage.stores import Stores
from tests.flows.notifications.conftest import Notifier


class Unreachable:
    """A receiver that is gone for good."""

    def send(self, message: Message) -> Outcome:
        return PermanentFailure("gone")


def age(notifier: Notifier, days: int) -> None:
    """Let days pass for all that was sent."""
    notifier.rows("update notifications set done_at = done_at - make_interval(days => %(d)s) returning id", d=days)
    notifier.rows("update sendings set ended_at = ended_at - make_interval(days => %(d)s) returning id", d=days)


def counts(notifier: Notifier) -> tuple[object, ...]:
    """How many deliveries, sendings, and notifications that are not forgotten there are."""
    [row] = notifier.rows(
        "select (select count(*)::int from deliveries) as deliveries, (select count(*)::int from sendings) as sendings,"
        " (select count(*)::int from notifications where not forgotten) as notifications"
    )
    return tuple(row.values())


def forget_old(stores: Stores) -> int:
    """What one run of apply-retention forgets."""
    sweep = begin(stores, seconds=60)
    forget_notifications(sweep, "notifications.keep_days")
    return sweep.removed.count


@pytest.fixture
def reader(notifier: Notifier) -> int:
    """A reader who was notified of four things a year ago, in the app and in vain by webhook, and of one today."""
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, "https://hooks.example.com/")
    comment = notifier.comment("Call me at 555 0100.")
    for number in range(4):
        notifier.notify(f"old {number}", comment, [reader])
    notifier.fan_out()
    deliver(notifier.stores, {Channel.WEBHOOK: Unreachable()}, workers=1)
    age(notifier, 365)
    notifier.wants(reader, "system", Channel.WEBHOOK, Frequency.NEVER)
    notifier.notify("today", readers=[reader])
    notifier.fan_out()
    return reader


def test_what_is_old_is_forgotten_piece_by_piece_and_the_rest_stays(notifier: Notifier, reader: int) -> None:
    assert counts(notifier) == (9, 4, 5)
    days = notifier.stores.settings.notifications.keep_days
    sizes: list[int] = []
    while gone := notifier.stores.database.run(notifications.forget_old(days, limit=2)):
        sizes.append(gone)
    assert counts(notifier) == (1, 0, 1)
    assert max(sizes) <= 2 * 3
    assert len(sizes) > 3
    assert [one.type for one in notifier.list_of(reader)] == ["system"]
    assert notifier.stores.database.run(in_app.unread(reader)) == {"system": 1}
    assert notifier.stores.database.run(sendings.dead()) == []
    rows = notifier.rows("select notifications::text as whole from notifications where forgotten")
    assert len(rows) == 4
    assert not any("Call me" in str(row["whole"]) or "bob" in str(row["whole"]) for row in rows)


def test_what_was_told_and_forgotten_is_not_told_again(notifier: Notifier, reader: int) -> None:
    assert forget_old(notifier.stores) > 0
    assert notifier.notify("old 1", readers=[reader]) == []
    assert notifier.fan_out() == 0
    assert len(notifier.list_of(reader)) == 1
    assert forget_old(notifier.stores) == 0


def test_a_notification_that_is_not_told_to_all_is_kept_and_so_are_all_within_the_days(notifier: Notifier) -> None:
    notifier.reader("reader")
    notifier.notify("told")
    notifier.fan_out()
    age(notifier, 179)
    notifier.notify("waits")
    assert forget_old(notifier.stores) == 0
    age(notifier, 2)
    assert forget_old(notifier.stores) == 2
    assert notifier.fan_out() == 1


def test_a_sending_whose_words_are_forgotten_tells_nothing(notifier: Notifier, reader: int) -> None:
    notifier.rows("update sendings set ended_at = now() returning id")
    forget_old(notifier.stores)
    [letter] = notifier.stores.database.run(sendings.dead())
    notifier.stores.database.run(sendings.replay(letter.id))
    notifier.rows("update endpoints set state = 'active', reason = null returning id")
    deliver(notifier.stores, {Channel.WEBHOOK: Unreachable()}, workers=1)
    [row] = notifier.rows("select state, last_error from sendings where id = %(id)s", id=letter.id)
    assert (row["state"], "gone or hidden" in str(row["last_error"])) == ("suppressed", True)
