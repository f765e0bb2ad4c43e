"""What is due leaves the platform: at its time, together when it should, signed, once in effect, given up loudly."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from flows.notifications import deliver as delivering
from flows.notifications import gathering
from flows.notifications.channels.protocol import GiveUp, Outcome, Parcel, Told, TryAgain
from flows.notifications.deliver import deliver
from flows.runs import draining_flows
from storage.postgres.notifications import deliveries, endpoints, preferences, sendings
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.preferences import Clocks
from storage.postgres.upkeep import pauses
from storage.records.metrics.freshness import Switch
from storage.records.notifications.notification_times import MAX_ATTEMPTS, RETRY_SECONDS
from storage.records.notifications.notifications import Channel, Frequency
from tests.flows.notifications.conftest import DONE, HOOK, NOTICE, SECRET, Post, both
from tests.flows.notifications.conftest import Told as Platform

# -- which, when and together


def test_only_active_addresses_are_told_and_only_of_what_is_wanted_there(told: Platform) -> None:
    ann, bob, cid, dan = (told.reader(name) for name in ("ann", "bob", "cid", "dan"))
    told.register(ann, Channel.WEBHOOK, HOOK)
    told.register(bob, Channel.EMAIL, "bob@example.com", "unconfirmed")
    told.register(cid, Channel.EMAIL, "cid@example.com")
    told.wants(cid, "system", Channel.EMAIL, Frequency.NEVER)
    told.tell("to all")
    told.fan_out()
    post = Post()
    deliver(told.stores, both(post), workers=2)
    assert [(parcel.reader, parcel.address) for parcel in post.parcels] == [(ann, HOOK)]
    assert len(told.list_of(dan)) == 1
    assert told.states() == ["sent"]


def test_a_reader_who_changes_its_mind_is_not_told_of_what_waits(told: Platform) -> None:
    unwilling, banned, gone = (told.reader(name) for name in ("unwilling", "banned", "gone"))
    for reader in (unwilling, banned, gone):
        told.register(reader, Channel.EMAIL, "x@example.com")
    told.tell("to all")
    told.fan_out()
    told.wants(unwilling, "system", Channel.EMAIL, Frequency.NEVER)
    told.rows("update accounts set status = 'banned', ban_reason = 'spam' where number = %(n)s returning 1", n=banned)
    told.stores.database.run(endpoints.drop(gone, Channel.EMAIL))
    post = Post()
    deliver(told.stores, both(post))
    assert post.parcels == []
    assert told.states() == ["suppressed"] * 3
    reasons = told.rows("select reason from deliveries where channel = 'email' order by reader")
    assert ["wants no more" in str(reasons[0]), "banned" in str(reasons[1]), "missing" in str(reasons[2])] == [True] * 3


def test_a_digest_carries_everything_since_the_last_one_in_one_call(
    told: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, other = told.reader("reader"), told.reader("other")
    for one in (reader, other):
        told.register(one, Channel.EMAIL, f"{one}@example.com")
    told.wants(reader, "system", Channel.EMAIL, Frequency.HOURLY)
    for number in range(3):
        told.tell(f"news {number}")
    told.fan_out()
    post = Post()
    deliver(told.stores, both(post))
    assert [parcel.reader for parcel in post.parcels] == [other] * 3
    next_hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    monkeypatch.setattr(delivering, "utc_now", lambda: next_hour)
    deliver(told.stores, both(post))
    assert [(parcel.reader, len(parcel.items)) for parcel in post.parcels[3:]] == [(reader, 3)]
    assert sorted(told.states()) == ["folded"] * 3 + ["sent"] * 3


def test_a_batch_never_tears_a_digest(told: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = told.readers(3)
    for one in readers:
        told.register(one, Channel.EMAIL, f"{one}@example.com")
        told.wants(one, "system", Channel.EMAIL, Frequency.DAILY)
    for number in range(4):
        told.tell(f"news {number}")
    told.fan_out()
    while told.stores.database.run(gathering.gather(datetime.now(UTC), 60, limit=5)):
        pass
    later = datetime.now(UTC) + timedelta(days=1)
    while told.stores.database.run(gathering.gather(later, 60, limit=5)):
        pass
    counted = told.rows(
        "select count(*)::int as carried from deliveries where sending_id is not null group by sending_id"
    )
    assert [row["carried"] for row in counted] == [4, 4, 4]


def test_quiet_hours_hold_back_what_interrupts_but_not_system_messages(told: Platform) -> None:
    reader = told.reader("reader")
    for channel, address in ((Channel.EMAIL, "r@example.com"), (Channel.WEBHOOK, HOOK)):
        told.register(reader, channel, address)
    now = datetime.now(UTC)
    clocks = Clocks(quiet_from=(now - timedelta(hours=1)).time(), quiet_to=(now + timedelta(hours=1)).time())
    told.stores.database.run(preferences.replace(reader, [], clocks))
    told.tell("job", DONE, [reader])
    told.tell("job 2", DONE, [reader])
    told.tell("system", NOTICE, [reader])
    told.fan_out()
    post = Post()
    deliver(told.stores, both(post))
    kinds = sorted((parcel.address, parcel.items[0].type) for parcel in post.parcels)
    assert kinds == [(HOOK, "job_finished"), (HOOK, "job_finished"), (HOOK, "system"), ("r@example.com", "system")]
    [row] = told.rows("select distinct due_at, folds from deliveries where state = 'waiting'")
    assert row["folds"]
    assert row["due_at"] == now + timedelta(hours=1)
    wait = told.stores.database.run(deliveries.next_due())
    assert wait is not None
    assert 3500 < wait <= 3600


def test_a_paused_channel_waits_and_the_others_go_on(told: Platform) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.EMAIL, "r@example.com")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.stores.database.run(sendings.pause(Channel.EMAIL))
    told.tell("to all")
    told.fan_out()
    post = Post()
    deliver(told.stores, both(post))
    assert [parcel.address for parcel in post.parcels] == [HOOK]
    assert told.stores.database.run(deliveries.wanted("x")) is None
    assert told.stores.database.run(deliveries.next_due()) is None
    assert told.stores.database.run(sendings.resume(Channel.EMAIL))
    deliver(told.stores, both(post))
    assert [parcel.address for parcel in post.parcels] == [HOOK, "r@example.com"]


# -- tries


def test_a_sending_is_tried_by_the_schedule_then_given_up_and_can_be_sent_again(
    told: Platform, caplog: pytest.LogCaptureFixture
) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.tell("to all")
    told.fan_out()
    post = Post(TryAgain("the receiver answered 500"))
    for seconds in RETRY_SECONDS:
        deliver(told.stores, both(post))
        [row] = told.rows("select extract(epoch from next_attempt_at - now())::float8 as pause from sendings")
        assert 0.89 * seconds < float(str(row["pause"])) <= 1.1 * seconds
        told.hurry()
    assert told.states() == ["waiting"]
    with caplog.at_level(logging.ERROR):
        deliver(told.stores, both(post))
    assert "given up: the receiver answered 500" in caplog.text
    assert told.states() == ["dead"]
    assert {parcel.id for parcel in post.parcels} == {post.parcels[0].id}
    assert len(post.parcels) == MAX_ATTEMPTS
    [letter] = told.stores.database.run(sendings.dead(reader=reader))
    assert (letter.id, letter.last_error) == (post.parcels[0].id, "the receiver answered 500")
    told.stores.database.run(sendings.replay(letter.id, reader))
    post.outcome = Told()
    deliver(told.stores, both(post))
    assert post.parcels[-1].id == letter.id
    assert told.states() == ["sent"]


def test_an_address_that_ends_is_used_no_more_and_what_waits_for_it_is_suppressed(told: Platform) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.tell("first")
    told.fan_out()
    deliver(told.stores, both(Post(GiveUp("the receiver answered 410 Gone"))))
    assert told.states() == ["dead"]
    [found] = told.stores.database.run(endpoints.of_reader(reader))
    assert (found.state, found.reason) == (EndpointState.SUSPENDED, "the receiver answered 410 Gone")
    told.tell("second")
    told.fan_out()
    assert told.states() == ["dead"]


def test_a_receiver_that_asks_for_a_longer_pause_gets_it(told: Platform) -> None:
    told.register(told.reader("reader"), Channel.WEBHOOK, HOOK)
    told.tell("to all")
    told.fan_out()
    deliver(told.stores, both(Post(TryAgain("the receiver answered 429", 3600))))
    [row] = told.rows("select extract(epoch from next_attempt_at - now())::float8 as pause from sendings")
    assert 3590 < float(str(row["pause"])) <= 3600


def test_a_sender_that_breaks_holds_up_no_other(told: Platform) -> None:
    for name in ("first", "second"):
        told.register(told.reader(name), Channel.WEBHOOK, HOOK)
    told.tell("to all")
    told.fan_out()

    class Broken(Post):
        def send(self, parcel: Parcel) -> Outcome:
            super().send(parcel)
            if len(self.parcels) == 1:
                raise RuntimeError("a template that fails")
            return Told()

    deliver(told.stores, both(Broken()), workers=1)
    assert sorted(told.states()) == ["sent", "waiting"]
    [row] = told.rows("select last_error from sendings where state = 'due'")
    assert row["last_error"] == "RuntimeError: a template that fails"


def test_a_key_that_does_not_open_is_named(told: Platform) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.rows("update endpoints set address = 'x' returning id")
    told.tell("to all")
    told.fan_out()
    deliver(told.stores, both(Post()))
    [row] = told.rows("select last_error from sendings")
    assert "does not open" in str(row["last_error"])


def test_a_backlog_stops_after_a_sending_when_its_time_is_up(told: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivering, "gather", partial(gathering.gather, limit=1))
    for reader in told.readers(3):
        told.register(reader, Channel.EMAIL, f"{reader}@example.com")
    told.tell("to all")
    told.fan_out()
    post = Post()
    deliver(told.stores, both(post), workers=1, seconds=0)
    assert told.rows("select count(*)::int as gathered from sendings") == [{"gathered": 1}]
    assert (len(post.parcels), sorted(told.states())) == (1, ["sent", "waiting", "waiting"])
    deliver(told.stores, both(post), workers=1)
    assert (len(post.parcels), told.states()) == (3, ["sent"] * 3)


def test_a_flow_that_is_paused_leaves_its_backlog(
    told: Platform, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in told.readers(3 * delivering.WORKERS):
        told.register(reader, Channel.EMAIL, f"{reader}@example.com")
    told.tell("to all")
    told.fan_out()
    post = Post()
    monkeypatch.setattr(draining_flows, "TURN_SECONDS", 0)
    monkeypatch.setattr(draining_flows, "note_point", lambda *_: None)
    monkeypatch.setattr(delivering, "senders", lambda _: both(post))
    told.stores.database.run(pauses.add(delivering.DELIVER, Switch.DARKROOM))
    assert delivering.deliver_notifications.fn() > 0
    assert 0 < len(post.parcels) <= delivering.WORKERS
    deliver(told.stores, both(post))
    assert len(post.parcels) == 3 * delivering.WORKERS


def test_ends_do_not_change_any_more(told: Platform) -> None:
    told.reader("reader")
    told.tell("to all")
    told.fan_out()
    for state in ("waiting", "folded", "suppressed", "dead"):
        with pytest.raises(Exception, match="cannot move from sent"):
            told.rows("update deliveries set state = %(state)s returning id", state=state)


def test_addresses_and_secrets_are_nowhere_in_the_database_in_the_clear(told: Platform) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.EMAIL, "ann.secret@example.com")
    told.register(reader, Channel.WEBHOOK, HOOK)
    [row] = told.rows(
        "select json_agg(endpoints)::text || string_agg(encode(address, 'escape'), ' ') as dump from endpoints"
    )
    assert not any(part in str(row["dump"]) for part in ("ann.secret", "secret=42", SECRET, json.dumps(HOOK)))
