"""Old notifications are forgotten in bounded pieces, with all that became of them; what was told once stays told."""

from __future__ import annotations

import pytest

from flows.notifications.channels.protocol import GiveUp, Outcome, Parcel
from flows.notifications.deliver import deliver
from flows.upkeep.retention.row_rules import forget_notifications
from flows.upkeep.retention.sweep import begin
from storage.postgres.notifications import in_app, notifications, sendings
from storage.records.notifications.notifications import Channel, Frequency
from storage.stores import Stores
from tests.flows.notifications.conftest import Told


class Away:
    """A receiver that is gone for good."""

    def send(self, parcel: Parcel) -> Outcome:
        return GiveUp("gone")


def age(told: Told, days: int) -> None:
    """Let days pass for all that was told."""
    told.rows("update notifications set done_at = done_at - make_interval(days => %(d)s) returning id", d=days)
    told.rows("update sendings set ended_at = ended_at - make_interval(days => %(d)s) returning id", d=days)


def counts(told: Told) -> tuple[object, ...]:
    """How many deliveries, sendings, and notifications that are not forgotten there are."""
    [row] = told.rows(
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
def reader(told: Told) -> int:
    """A reader who was told of four things a year ago, in the app and in vain by webhook, and of one today."""
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, "https://hooks.example.com/")
    comment = told.comment("Call me at 555 0100.")
    for number in range(4):
        told.tell(f"old {number}", comment, [reader])
    told.fan_out()
    deliver(told.stores, {Channel.WEBHOOK: Away()}, workers=1)
    age(told, 365)
    told.wants(reader, "system", Channel.WEBHOOK, Frequency.NEVER)
    told.tell("today", readers=[reader])
    told.fan_out()
    return reader


def test_what_is_old_is_forgotten_piece_by_piece_and_the_rest_stays(told: Told, reader: int) -> None:
    assert counts(told) == (9, 4, 5)
    days = told.stores.settings.notifications.keep_days
    sizes: list[int] = []
    while gone := told.stores.database.run(notifications.forget_old(days, limit=2)):
        sizes.append(gone)
    assert counts(told) == (1, 0, 1)
    assert max(sizes) <= 2 * 3
    assert len(sizes) > 3
    assert [one.type for one in told.list_of(reader)] == ["system"]
    assert told.stores.database.run(in_app.unread(reader)) == {"system": 1}
    assert told.stores.database.run(sendings.dead()) == []
    rows = told.rows("select notifications::text as whole from notifications where forgotten")
    assert len(rows) == 4
    assert not any("Call me" in str(row["whole"]) or "bob" in str(row["whole"]) for row in rows)


def test_what_was_told_and_forgotten_is_not_told_again(told: Told, reader: int) -> None:
    assert forget_old(told.stores) > 0
    assert told.tell("old 1", readers=[reader]) == []
    assert told.fan_out() == 0
    assert len(told.list_of(reader)) == 1
    assert forget_old(told.stores) == 0


def test_a_notification_that_is_not_told_to_all_is_kept_and_so_are_all_within_the_days(told: Told) -> None:
    told.reader("reader")
    told.tell("told")
    told.fan_out()
    age(told, 179)
    told.tell("waits")
    assert forget_old(told.stores) == 0
    age(told, 2)
    assert forget_old(told.stores) == 2
    assert told.fan_out() == 1


def test_a_sending_whose_words_are_forgotten_tells_nothing(told: Told, reader: int) -> None:
    told.rows("update sendings set ended_at = now() returning id")
    forget_old(told.stores)
    [letter] = told.stores.database.run(sendings.dead())
    told.stores.database.run(sendings.replay(letter.id))
    told.rows("update endpoints set state = 'active', reason = null returning id")
    deliver(told.stores, {Channel.WEBHOOK: Away()}, workers=1)
    [row] = told.rows("select state, last_error from sendings where id = %(id)s", id=letter.id)
    assert (row["state"], "forgotten" in str(row["last_error"])) == ("suppressed", True)
