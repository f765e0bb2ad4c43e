"""What is due leaves the platform: at its time, together when it should, signed, once in effect, given up loudly."""

from __future__ import annotations

import json
import logging
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from flows.notifications import deliver as delivering
from flows.notifications import due_deliveries
from flows.notifications.channels.protocol import Message, Outcome, PermanentFailure, Sent, TemporaryFailure
from flows.notifications.deliver import deliver
from flows.runs import draining_flows
from storage.postgres.notifications import deliveries, endpoints, preferences, sendings
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.preferences import Clocks
from storage.postgres.upkeep import pauses
from storage.records.metrics.freshness import Switch
from storage.records.notifications.channels import Channel
from storage.records.notifications.notification_times import MAX_ATTEMPTS, RETRY_SECONDS
from storage.records.notifications.notifications import Frequency
from tests.flows.notifications.conftest import DONE, HOOK, NOTICE, SECRET, Notifier, Post, both

# -- which, when and together


def test_only_active_addresses_are_told_and_only_of_what_is_wanted_there(notifier: Notifier) -> None:
    ann, bob, cid, dan = (notifier.reader(name) for name in ("ann", "bob", "cid", "dan"))
    notifier.register(ann, Channel.WEBHOOK, HOOK)
    notifier.register(bob, Channel.EMAIL, "bob@example.com", "unconfirmed")
    notifier.register(cid, Channel.EMAIL, "cid@example.com")
    notifier.wants(cid, "system", Channel.EMAIL, Frequency.NEVER)
    notifier.notify("to all")
    notifier.fan_out()
    post = Post()
    deliver(notifier.stores, both(post), workers=2)
    assert [(message.reader, message.address) for message in post.messages] == [(ann, HOOK)]
    assert len(notifier.list_of(dan)) == 1
    assert notifier.states() == ["sent"]


def test_a_reader_who_changes_its_mind_is_not_told_of_what_waits(notifier: Notifier) -> None:
    unwilling, banned, gone = (notifier.reader(name) for name in ("unwilling", "banned", "gone"))
    for reader in (unwilling, banned, gone):
        notifier.register(reader, Channel.EMAIL, "x@example.com")
    notifier.notify("to all")
    notifier.fan_out()
    notifier.wants(unwilling, "system", Channel.EMAIL, Frequency.NEVER)
    notifier.rows(
        "update accounts set status = 'banned', ban_reason = 'spam' where number = %(n)s returning 1", n=banned
    )
    notifier.stores.database.run(endpoints.drop(gone, Channel.EMAIL))
    post = Post()
    deliver(notifier.stores, both(post))
    assert post.messages == []
    assert notifier.states() == ["suppressed"] * 3
    reasons = notifier.rows("select reason from deliveries where channel = 'email' order by reader")
    assert ["wants no more" in str(reasons[0]), "banned" in str(reasons[1]), "missing" in str(reasons[2])] == [True] * 3


def test_a_digest_carries_everything_since_the_last_one_in_one_call(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, other = notifier.reader("reader"), notifier.reader("other")
    for one in (reader, other):
        notifier.register(one, Channel.EMAIL, f"{one}@example.com")
    notifier.wants(reader, "system", Channel.EMAIL, Frequency.HOURLY)
    for number in range(3):
        notifier.notify(f"news {number}")
    notifier.fan_out()
    post = Post()
    deliver(notifier.stores, both(post))
    assert [message.reader for message in post.messages] == [other] * 3
    next_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    monkeypatch.setattr(delivering, "utc_now", lambda: next_hour)
    deliver(notifier.stores, both(post))
    assert [(message.reader, len(message.items)) for message in post.messages[3:]] == [(reader, 3)]
    assert sorted(notifier.states()) == ["folded"] * 3 + ["sent"] * 3


def test_a_batch_never_tears_a_digest(notifier: Notifier, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = notifier.readers(3)
    for one in readers:
        notifier.register(one, Channel.EMAIL, f"{one}@example.com")
        notifier.wants(one, "system", Channel.EMAIL, Frequency.DAILY)
    for number in range(4):
        notifier.notify(f"news {number}")
    notifier.fan_out()
    while notifier.stores.database.run(due_deliveries.gather(datetime.now(UTC), 60, limit=5)):
        pass
    later = datetime.now(UTC) + timedelta(days=1)
    while notifier.stores.database.run(due_deliveries.gather(later, 60, limit=5)):
        pass
    counted = notifier.rows(
        "select count(*)::int as carried from deliveries where sending_id is not null group by sending_id"
    )
    assert [row["carried"] for row in counted] == [4, 4, 4]


def test_quiet_hours_hold_back_what_interrupts_but_not_system_messages(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    for channel, address in ((Channel.EMAIL, "r@example.com"), (Channel.WEBHOOK, HOOK)):
        notifier.register(reader, channel, address)
    now = datetime.now(UTC)
    clocks = Clocks(quiet_from=(now - timedelta(hours=1)).time(), quiet_to=(now + timedelta(hours=1)).time())
    notifier.stores.database.run(preferences.replace(reader, [], clocks))
    notifier.notify("job", DONE, [reader])
    notifier.notify("job 2", DONE, [reader])
    notifier.notify("system", NOTICE, [reader])
    notifier.fan_out()
    post = Post()
    deliver(notifier.stores, both(post))
    kinds = sorted((message.address, message.items[0].type) for message in post.messages)
    assert kinds == [(HOOK, "job_finished"), (HOOK, "job_finished"), (HOOK, "system"), ("r@example.com", "system")]
    [row] = notifier.rows("select distinct due_at, folds from deliveries where state = 'waiting'")
    assert row["folds"]
    assert row["due_at"] == now + timedelta(hours=1)
    wait = notifier.stores.database.run(deliveries.next_due())
    assert wait is not None
    assert 3500 < wait <= 3600


def test_a_paused_channel_waits_and_the_others_go_on(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.EMAIL, "r@example.com")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.stores.database.run(sendings.pause(Channel.EMAIL))
    notifier.notify("to all")
    notifier.fan_out()
    post = Post()
    deliver(notifier.stores, both(post))
    assert [message.address for message in post.messages] == [HOOK]
    assert notifier.stores.database.run(deliveries.wanted("x")) is None
    assert notifier.stores.database.run(deliveries.next_due()) is None
    assert notifier.stores.database.run(sendings.resume(Channel.EMAIL))
    deliver(notifier.stores, both(post))
    assert [message.address for message in post.messages] == [HOOK, "r@example.com"]


# -- tries


def test_a_sending_is_tried_by_the_schedule_then_given_up_and_can_be_sent_again(
    notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.notify("to all")
    notifier.fan_out()
    post = Post(TemporaryFailure("the receiver returned 500"))
    for seconds in RETRY_SECONDS:
        started = time.monotonic()
        deliver(notifier.stores, both(post))
        [row] = notifier.rows("select extract(epoch from next_attempt_at - now())::float8 as pause from sendings")
        passed = time.monotonic() - started
        assert 0.89 * seconds - passed < float(str(row["pause"])) <= 1.1 * seconds
        notifier.hurry()
    assert notifier.states() == ["waiting"]
    with caplog.at_level(logging.ERROR):
        deliver(notifier.stores, both(post))
    assert "given up: the receiver returned 500" in caplog.text
    assert notifier.states() == ["dead"]
    assert {message.id for message in post.messages} == {post.messages[0].id}
    assert len(post.messages) == MAX_ATTEMPTS
    [letter] = notifier.stores.database.run(sendings.dead(reader=reader))
    assert (letter.id, letter.last_error) == (post.messages[0].id, "the receiver returned 500")
    notifier.stores.database.run(sendings.replay(letter.id, reader))
    post.outcome = Sent()
    deliver(notifier.stores, both(post))
    assert post.messages[-1].id == letter.id
    assert notifier.states() == ["sent"]


def test_an_address_that_ends_is_used_no_more_and_what_waits_for_it_is_suppressed(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.notify("first")
    notifier.fan_out()
    deliver(notifier.stores, both(Post(PermanentFailure("the receiver returned 410 Gone"))))
    assert notifier.states() == ["dead"]
    [found] = notifier.stores.database.run(endpoints.of_reader(reader))
    assert (found.state, found.reason) == (EndpointState.SUSPENDED, "the receiver returned 410 Gone")
    notifier.notify("second")
    notifier.fan_out()
    assert notifier.states() == ["dead"]


def test_a_receiver_that_asks_for_a_longer_pause_gets_it(notifier: Notifier) -> None:
    notifier.register(notifier.reader("reader"), Channel.WEBHOOK, HOOK)
    notifier.notify("to all")
    notifier.fan_out()
    deliver(notifier.stores, both(Post(TemporaryFailure("the receiver returned 429", 3600))))
    [row] = notifier.rows("select extract(epoch from next_attempt_at - now())::float8 as pause from sendings")
    assert 3590 < float(str(row["pause"])) <= 3600


def test_a_sender_that_breaks_holds_up_no_other(notifier: Notifier) -> None:
    for name in ("first", "second"):
        notifier.register(notifier.reader(name), Channel.WEBHOOK, HOOK)
    notifier.notify("to all")
    notifier.fan_out()

    class Broken(Post):
        def send(self, message: Message) -> Outcome:
            super().send(message)
            if len(self.messages) == 1:
                raise RuntimeError("a template that fails")
            return Sent()

    deliver(notifier.stores, both(Broken()), workers=1)
    assert sorted(notifier.states()) == ["sent", "waiting"]
    [row] = notifier.rows("select last_error from sendings where state = 'due'")
    assert row["last_error"] == "RuntimeError: a template that fails"


def test_a_key_that_does_not_open_is_named(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    notifier.rows("update endpoints set address = 'x' returning id")
    notifier.notify("to all")
    notifier.fan_out()
    deliver(notifier.stores, both(Post()))
    [row] = notifier.rows("select last_error from sendings")
    assert "does not open" in str(row["last_error"])


def test_a_backlog_stops_after_a_sending_when_its_time_is_up(
    notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "gather", partial(due_deliveries.gather, limit=1))
    for reader in notifier.readers(3):
        notifier.register(reader, Channel.EMAIL, f"{reader}@example.com")
    notifier.notify("to all")
    notifier.fan_out()
    post = Post()
    deliver(notifier.stores, both(post), workers=1, seconds=0)
    assert notifier.rows("select count(*)::int as gathered from sendings") == [{"gathered": 1}]
    assert (len(post.messages), sorted(notifier.states())) == (1, ["sent", "waiting", "waiting"])
    deliver(notifier.stores, both(post), workers=1)
    assert (len(post.messages), notifier.states()) == (3, ["sent"] * 3)


def test_a_flow_that_is_paused_leaves_its_backlog(
    notifier: Notifier, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in notifier.readers(3 * delivering.WORKERS):
        notifier.register(reader, Channel.EMAIL, f"{reader}@example.com")
    notifier.notify("to all")
    notifier.fan_out()
    post = Post()
    monkeypatch.setattr(draining_flows, "ITERATION_SECONDS", 0)
    monkeypatch.setattr(draining_flows, "note_point", lambda *_: None)
    monkeypatch.setattr(delivering, "senders", lambda _: both(post))
    notifier.stores.database.run(pauses.add(delivering.DELIVER, Switch.DARKROOM))
    assert delivering.deliver_notifications.fn() > 0
    assert 0 < len(post.messages) <= delivering.WORKERS
    deliver(notifier.stores, both(post))
    assert len(post.messages) == 3 * delivering.WORKERS


def test_ends_do_not_change_any_more(notifier: Notifier) -> None:
    notifier.reader("reader")
    notifier.notify("to all")
    notifier.fan_out()
    for state in ("waiting", "folded", "suppressed", "dead"):
        with pytest.raises(Exception, match="cannot move from sent"):
            notifier.rows("update deliveries set state = %(state)s returning id", state=state)


def test_addresses_and_secrets_are_nowhere_in_the_database_in_the_clear(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.EMAIL, "ann.secret@example.com")
    notifier.register(reader, Channel.WEBHOOK, HOOK)
    [row] = notifier.rows(
        "select json_agg(endpoints)::text || string_agg(encode(address, 'escape'), ' ') as dump from endpoints"
    )
    assert not any(part in str(row["dump"]) for part in ("ann.secret", "secret=42", SECRET, json.dumps(HOOK)))
