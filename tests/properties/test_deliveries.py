"""Each delivery ends once, in one sending, and nothing is sent that has ended: whichever worker dies when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule
from pydantic import SecretStr

from flows.notifications.due_deliveries import gather
from storage.errors import DarkroomError, NotFound
from storage.postgres.connection import Database
from storage.postgres.notifications import deliveries, endpoints, notifications, preferences, sendings
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.sendings import Sending, SendingState
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import Frequency, Preference, SystemNotice
from storage.settings import PostgresSettings
from tests.properties.machines import CRASHES, Fault, Machine, assert_caught, fault, run
from tests.storage.makers import an_account

CHANNELS = st.sampled_from([Channel.EMAIL, Channel.WEBHOOK])
TELL = """
insert into deliveries (notification_id, reader, channel, state, frequency, folds, due_at)
values (%(notification)s, %(reader)s, %(channel)s, 'waiting', 'now', %(folds)s, coalesce(%(moment)s, now()))
returning id
"""
KIND = "system"
ENDS = [SendingState.SENT, SendingState.DEAD, SendingState.SUPPRESSED]
NOTICE = SystemNotice(title="Maintenance", text="The platform is unavailable on Sunday.")


@dataclass
class Delivery:
    """What the model knows of one."""

    channel: Channel
    state: str = "waiting"
    sending: UUID | None = None


@dataclass
class Call:
    """What the model knows of a sending."""

    channel: Channel
    state: str = "due"
    attempts: int = 0
    claims: int = 0
    now: bool = True


class Deliveries(Machine):
    """One reader with an e-mail address and a webhook; workers that gather, claim, call and die."""

    tables = ("deliveries", "sendings", "notifications", "notification_preferences", "channel_pauses", "endpoints")

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        an_account(database)
        [account] = self.execute("select number from accounts")
        self.reader = int(account["number"])
        for channel, secret in ((Channel.EMAIL, None), (Channel.WEBHOOK, b"s")):
            put = endpoints.put(self.reader, channel, EndpointState.ACTIVE, shown="…", address=b"a", secret=secret)
            database.run(put)
        self.deliveries: dict[int, Delivery] = {}
        self.calls: dict[UUID, Call] = {}
        self.claims: list[Sending] = []
        self.paused: set[Channel] = set()
        self.unwanted: set[Channel] = set()
        self.count, self.moment = 0, datetime.now(UTC) - timedelta(hours=1)

    @rule(channel=CHANNELS, folds=st.booleans())
    def notify(self, channel: Channel, folds: bool) -> None:
        """Something for the reader; what was postponed to one time goes into one call."""
        self.count += 1
        [notification] = self.database.run(notifications.add(f"key {self.count}", NOTICE, [self.reader])) or [0]
        self.execute("update notifications set title = 't', text = 't', done_at = now() where done_at is null")
        [row] = self.execute(
            TELL,
            notification=notification,
            reader=self.reader,
            channel=channel,
            folds=folds,
            moment=self.moment if folds else None,
        )
        self.deliveries[row["id"]] = Delivery(channel)

    @rule(channel=CHANNELS, frequency=st.sampled_from([Frequency.NOW, Frequency.NEVER]))
    def prefer(self, channel: Channel, frequency: Frequency) -> None:
        self.database.run(preferences.say(self.reader, [Preference(type=KIND, channel=channel, frequency=frequency)]))
        (self.unwanted.add if frequency is Frequency.NEVER else self.unwanted.discard)(channel)

    @rule(limit=st.sampled_from([1, 500]), crash=CRASHES)
    def gather(self, limit: int, crash: int | None) -> None:
        due = {
            identity: delivery
            for identity, delivery in sorted(self.deliveries.items())
            if delivery.state == "waiting" and delivery.sending is None and delivery.channel not in self.paused
        }

        def gathered(count: int) -> None:
            assert count == min(limit, len(due))
            rows = self.execute("select id, state, sending_id from deliveries where id = any(%(ids)s)", ids=list(due))
            moved = [row for row in rows if row["state"] != "waiting" or row["sending_id"] is not None]
            assert len(moved) == count
            for row in moved:
                delivery = self.deliveries[row["id"]]
                if delivery.channel in self.unwanted:
                    assert (row["state"], row["sending_id"]) == ("suppressed", None)
                    delivery.state = "suppressed"
                else:
                    assert row["sending_id"] not in self.calls
                    delivery.sending = row["sending_id"]
            for delivery in self.deliveries.values():
                if delivery.sending is not None and delivery.sending not in self.calls:
                    self.calls[delivery.sending] = Call(delivery.channel)

        now = datetime.now(UTC) + timedelta(seconds=5)
        self.carry_out(gather(now, 0, limit), crash, None, gathered)

    @rule(crash=CRASHES)
    def claim(self, crash: int | None) -> None:
        open_calls = {
            identity
            for identity, call in self.calls.items()
            if call.state == "due" and call.now and call.channel not in self.paused
        }

        def claimed(sending: Sending | None) -> None:
            if sending is None:
                assert not open_calls
                return
            assert sending.id in open_calls
            call = self.calls[sending.id]
            call.attempts, call.claims, call.now = call.attempts + 1, call.claims + 1, False
            assert (sending.attempts, sending.claims) == (call.attempts, call.claims)
            assert len(self.database.run(sendings.items(sending.id))) == self.carried(sending.id)
            self.claims.append(sending)

        self.carry_out(sendings.claim(600), crash, None, claimed)

    def carried(self, sending: UUID) -> int:
        """How many deliveries a sending carries."""
        return sum(delivery.sending == sending for delivery in self.deliveries.values())

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), state=st.sampled_from(ENDS), crash=CRASHES)
    def end(self, data: st.DataObject, state: SendingState, crash: int | None) -> None:
        """A worker notes how its call went; it may be an old one, whose claim another has taken over."""
        claim = data.draw(st.sampled_from(self.claims))
        call = self.calls[claim.id]
        newest = call.state == "due" and call.claims == claim.claims

        def ended(was_newest: bool) -> None:
            assert was_newest == newest
            if newest:
                call.state = state
                single = "sent" if self.carried(claim.id) == 1 else "folded"
                for delivery in self.deliveries.values():
                    if delivery.sending == claim.id and delivery.state == "waiting":
                        delivery.state = single if state is SendingState.SENT else state

        self.carry_out(sendings.end(claim, state, "why"), crash, None, ended)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), crash=CRASHES)
    def again(self, data: st.DataObject, crash: int | None) -> None:
        claim = data.draw(st.sampled_from(self.claims))
        call = self.calls[claim.id]
        newest = call.state == "due" and call.claims == claim.claims

        def tried(found: Sending | None) -> None:
            assert (found is not None) == newest
            call.now = call.now and not newest

        self.carry_out(sendings.again(claim, 600, "why"), crash, None, tried)

    @precondition(lambda self: self.calls)
    @rule(data=st.data(), anothers=st.booleans(), crash=CRASHES)
    def replay(self, data: st.DataObject, anothers: bool, crash: int | None) -> None:
        identity = data.draw(st.sampled_from(list(self.calls)))
        call = self.calls[identity]

        def replayed(_: Sending) -> None:
            call.state, call.attempts, call.now = "due", 0, True
            for delivery in self.deliveries.values():
                if delivery.sending == identity and delivery.state == "dead":
                    delivery.state = "waiting"

        refusal: type[DarkroomError] | None = None if call.state == "dead" and not anothers else NotFound
        reader = self.reader + 1 if anothers else self.reader
        self.carry_out(sendings.replay(identity, reader), crash, refusal, replayed)

    @rule(channel=CHANNELS, crash=CRASHES)
    def pause(self, channel: Channel, crash: int | None) -> None:
        self.carry_out(sendings.pause(channel), crash, None, lambda _: self.paused.add(channel))

    @rule(channel=CHANNELS, crash=CRASHES)
    def resume(self, channel: Channel, crash: int | None) -> None:
        def resumed(was_paused: bool) -> None:
            assert was_paused == (channel in self.paused)
            self.paused.discard(channel)

        self.carry_out(sendings.resume(channel), crash, None, resumed)

    @rule()
    def time_passes(self) -> None:
        """Claims of workers that died run out, pauses between tries end."""
        self.execute("update sendings set next_attempt_at = now() where state = 'due'")
        for call in self.calls.values():
            call.now = call.now or call.state == "due"

    @precondition(lambda self: self.claims)
    @rule(crash=CRASHES)
    def take_over(self, crash: int | None) -> None:
        """A worker was slow, and another claims its call."""
        self.time_passes()
        self.claim(crash)

    @invariant()
    def rows_equal_the_model(self) -> None:
        """Where every delivery and every sending stands."""
        rows = self.execute("select id, state, sending_id from deliveries")
        assert {row["id"]: (row["state"], row["sending_id"]) for row in rows} == {
            identity: (str(delivery.state), delivery.sending) for identity, delivery in self.deliveries.items()
        }
        found: list[dict[str, Any]] = self.execute("select id, state, attempts, channel from sendings")
        assert {row["id"]: (row["state"], row["attempts"], row["channel"]) for row in found} == {
            identity: (str(call.state), call.attempts, str(call.channel)) for identity, call in self.calls.items()
        }

    def teardown(self) -> None:
        """Once nobody dies every delivery ends."""
        self.execute("delete from channel_pauses")
        self.execute("update sendings set next_attempt_at = now() where state = 'due'")
        while self.database.run(gather(datetime.now(UTC) + timedelta(seconds=5), 0)):
            pass
        while sending := self.database.run(sendings.claim(600)):
            assert self.database.run(sendings.end(sending, SendingState.SENT))
        assert self.execute("select from deliveries where state = 'waiting'") == []
        lag = self.database.run(deliveries.lag())
        assert (lag.waiting, lag.sendings) == (0, 0)


@pytest.fixture(scope="module")
def database(module_database_url: str) -> Iterator[Database]:
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as opened:
        yield opened


def test_each_delivery_ends_once(database: Database) -> None:
    run(lambda: Deliveries(database), examples=10)


@pytest.mark.soak
def test_each_delivery_ends_once_at_length(database: Database) -> None:
    run(lambda: Deliveries(database), examples=500, steps=50)


FAULTS = [
    fault(sendings.SQL, "claim", "state = 'due' and next_attempt_at <= now()", "state = 'due'"),
    fault(sendings.SQL, "claim", "state = 'due' and next_attempt_at", "next_attempt_at"),
    fault(sendings.SQL, "claim", "and channel not in (select channel from channel_pauses)"),
    fault(sendings.SQL, "claim", "set attempts = attempts + 1", "set attempts = attempts"),
    fault(sendings.SQL, "claim", "claims = claims + 1", "claims = claims"),
    fault(sendings.SQL, "end", "and claims = %(claims)s"),
    fault(sendings.SQL, "end", "and state = 'due' and", "and"),
    fault(sendings.SQL, "end_deliveries", "other.sending_id = %(id)s) > 1", "other.sending_id = %(id)s) > 0"),
    fault(sendings.SQL, "end_deliveries", "when %(state)s <> 'sent' then %(state)s"),
    fault(sendings.SQL, "again", "and claims = %(claims)s"),
    fault(sendings.SQL, "again", "and state = 'due'"),
    fault(sendings.SQL, "replay", "and state = 'dead'"),
    fault(sendings.SQL, "replay", "and (%(reader)s::bigint is null or reader = %(reader)s::bigint)"),
    fault(sendings.SQL, "replay", "attempts = 0, "),
    fault(sendings.SQL, "replay_deliveries", "set state = 'waiting', reason", "set reason"),
    fault(deliveries.SQL, "put_into", ", due_at = null"),
    fault(deliveries.SQL, "due", "and channel not in (select channel from channel_pauses)"),
    fault(deliveries.SQL, "due", "preference.frequency = 'never'", "preference.frequency = 'daily'"),
]
"""Each of them must be noticed by the machine."""


def test_a_fault_is_caught(database: Database) -> None:
    assert_caught(lambda: Deliveries(database), FAULTS[4])


@pytest.mark.soak
@pytest.mark.parametrize("made", FAULTS, ids=str)
def test_every_fault_is_caught(database: Database, made: Fault) -> None:
    assert_caught(lambda: Deliveries(database), made)
