"""What is due leaves the platform: at its time, together when it should, signed, once in effect, given up loudly."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from standardwebhooks import Webhook

from flows.notifications import deliver as delivering
from flows.notifications import gathering
from flows.notifications.channels.email import EmailSender
from flows.notifications.channels.protocol import GiveUp, Outcome, Parcel, Sender, Told, TryAgain
from flows.notifications.channels.webhook import WebhookSender
from flows.notifications.deliver import deliver
from storage.postgres import deliveries, endpoints, preferences, sendings
from storage.postgres.endpoints import EndpointState
from storage.postgres.preferences import Clocks
from storage.postgres.sendings import Purpose
from storage.records.notification_links import Unsubscribe, read_link
from storage.records.notification_times import MAX_ATTEMPTS, RETRY_SECONDS
from storage.records.notifications import Channel, Frequency, JobFinished, SystemNotice
from storage.sealing import Seal
from storage.settings import Settings
from tests.conftest import free_port
from tests.flows.notifications.conftest import NOTICE, SECRET
from tests.flows.notifications.conftest import Told as Platform
from tests.flows.notifications.internet import Internet, Receiver, receiving

HOOK = "https://hooks.example.com/darkroom?secret=42"
DONE = JobFinished(job_id=UUID(int=1), job_kind="generation")


@dataclass
class Post:
    """A channel that does as it is told, and remembers what it got."""

    outcome: Outcome = field(default_factory=Told)
    parcels: list[Parcel] = field(default_factory=list)

    def send(self, parcel: Parcel) -> Outcome:
        self.parcels.append(parcel)
        return self.outcome


def both(sender: Sender) -> Mapping[Channel, Sender]:
    return {Channel.EMAIL: sender, Channel.WEBHOOK: sender}


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


def test_ends_do_not_change_any_more(told: Platform) -> None:
    told.reader("reader")
    told.tell("to all")
    told.fan_out()
    for state in ("waiting", "folded", "suppressed", "dead"):
        with pytest.raises(Exception, match="cannot move from sent"):
            told.rows("update deliveries set state = %(state)s returning id", state=state)


# -- webhooks


@pytest.fixture
def net(tmp_path: Path) -> Iterator[tuple[Internet, Receiver]]:
    with receiving(tmp_path, "hooks.example.com") as found:
        yield found


def test_a_webhook_is_signed_so_that_its_receiver_can_check_it(told: Platform, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.tell("job", DONE, [reader])
    told.fan_out()
    sender = WebhookSender(internet.transport(), "https://d.example")
    deliver(told.stores, both(sender))
    [call] = receiver.calls
    checked = Webhook(SECRET).verify(call.body, call.headers)
    assert call.path == "/darkroom?secret=42"
    assert checked["type"] == "notification.job_finished"
    assert checked["data"]["title"] == "Your generation is done"
    assert checked["data"]["link"] == f"https://d.example/api/v1/generations/{DONE.job_id}"
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(call.body.replace(b"done", b"gone"), call.headers)


def test_after_a_new_secret_was_made_both_sign_for_a_while(told: Platform, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    new = "whsec_" + "bmV3IHNlY3JldCBuZXcgc2VjcmV0IG5ldw=="
    sealed = Seal(told.stores.settings.notifications).seal(new)
    told.stores.database.run(endpoints.rotate(reader, sealed, 3600))
    sender = WebhookSender(internet.transport(), "https://d.example")
    for key in ("during", "after"):
        told.tell(key)
        told.fan_out()
        deliver(told.stores, both(sender))
        told.rows("update endpoints set old_until = now() - interval '1 second' returning id")
    during, after = receiver.calls
    for secret, call in ((SECRET, during), (new, during), (new, after)):
        Webhook(secret).verify(call.body, call.headers)
    with pytest.raises(Exception, match="No matching signature"):
        Webhook(SECRET).verify(after.body, after.headers)


def test_what_receivers_do_decides_what_comes_next(told: Platform, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    told.tell("to all")
    told.fan_out()
    sender = WebhookSender(internet.transport(), "https://d.example")
    hasty = WebhookSender(internet.transport(seconds=0.5), "https://d.example")

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 302 Found\r\nLocation: https://10.0.0.1/\r\nContent-Length: 0\r\n\r\n")

    def drop(request: BaseHTTPRequestHandler) -> None:
        request.close_connection = True

    def take_and_drop(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\ntak")
        request.close_connection = True

    def hang(request: BaseHTTPRequestHandler) -> None:
        request.connection.settimeout(5)
        request.connection.recv(1)

    for answer, reason in (
        (500, "500"),
        (redirect, "not followed"),
        (drop, "Disconnect|Protocol"),
        (take_and_drop, "Protocol"),  # it may have it: the next try carries the same id
        (hang, "took more"),
    ):
        receiver.answer = answer
        deliver(told.stores, both(hasty if answer is hang else sender), workers=1)
        [row] = told.rows("select state, last_error from sendings")
        assert row["state"] == "due", reason
        assert any(part in str(row["last_error"]) for part in reason.split("|")), row
        told.hurry()
    receiver.answer = 200
    deliver(told.stores, both(sender), workers=1)
    assert told.states() == ["sent"]
    assert len({call.headers["webhook-id"] for call in receiver.calls}) == 1
    assert len({call.body for call in receiver.calls}) == 1
    receiver.answer = 410
    told.tell("more")
    told.fan_out()
    deliver(told.stores, both(sender), workers=1)
    assert told.states() == ["sent", "dead"]
    internet.names["hooks.example.com"] = ["169.254.169.254"]


def test_a_name_that_turns_inwards_ends_the_address(told: Platform, net: tuple[Internet, Receiver]) -> None:
    internet, receiver = net
    reader = told.reader("reader")
    told.register(reader, Channel.WEBHOOK, HOOK)
    internet.names["hooks.example.com"] = ["169.254.169.254"]
    told.tell("to all")
    told.fan_out()
    deliver(told.stores, both(WebhookSender(internet.transport(), "https://d.example")))
    assert (told.states(), receiver.calls, internet.connections) == (["dead"], [], [])
    [found] = told.stores.database.run(endpoints.of_reader(reader))
    assert "not on the internet" in str(found.reason)


# -- e-mail


class Mailbox:
    """What a mail server does with what it is handed: `refusals` maps a receiver to its answer."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refusals: dict[str, str] = {}

    async def handle_RCPT(
        self, server: object, session: object, envelope: object, address: str, options: object
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)  # type: ignore[attr-defined]
        return "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        content: bytes = envelope.original_content  # type: ignore[attr-defined]
        self.messages.append(message_from_bytes(content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@dataclass
class Mail:
    """A mail server and a sender that hands e-mail to it."""

    box: Mailbox
    sender: EmailSender


@pytest.fixture
def mail(settings: Settings) -> Iterator[Mail]:
    box = Mailbox()
    port = free_port()
    controller = Controller(box, hostname="127.0.0.1", port=port)
    controller.start()
    served = settings.notifications.model_copy(
        update={"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_security": "none", "sender": "news@d.example"}
    )
    yield Mail(box, EmailSender(served, "https://d.example", "a key"))
    controller.stop()


def test_an_email_says_it_in_text_and_html_and_can_be_stopped_with_one_click(told: Platform, mail: Mail) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.EMAIL, "ann@example.com")
    told.tell("to all", SystemNotice(title="Maintenance <soon>", text="On Sunday.", path="/docs"))
    told.fan_out()
    deliver(told.stores, both(mail.sender))
    [message] = mail.box.messages
    [sending] = told.rows("select id from sendings")
    assert (message["To"], message["Subject"]) == ("ann@example.com", "Maintenance <soon>")
    assert message["Message-ID"] == f"<{sending['id']}@d.example>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = str(message["List-Unsubscribe"]).strip("<>")
    assert read_link(link.partition("token=")[2], Unsubscribe, "a key") == Unsubscribe(reader=reader, types=("system",))
    text, page = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert page is not None
    assert "On Sunday.\nhttps://d.example/docs" in text.get_content().replace("\r\n", "\n")
    assert link in text.get_content().replace("\r\n", "").replace("\n", "")
    assert "<h2 style='font-size:1.1em'>Maintenance &lt;soon&gt;</h2>" in page.get_content()


def test_an_address_that_bounces_for_good_is_suspended_and_one_that_is_busy_is_tried_again(
    told: Platform, mail: Mail
) -> None:
    busy, wrong = told.reader("busy"), told.reader("wrong")
    told.register(busy, Channel.EMAIL, "busy@example.com")
    told.register(wrong, Channel.EMAIL, "wrong@example.com")
    mail.box.refusals = {"busy@example.com": "450 Try later", "wrong@example.com": "550 No such user"}
    told.tell("to all")
    told.fan_out()
    deliver(told.stores, both(mail.sender))
    found = {one: told.stores.database.run(endpoints.get(one, Channel.EMAIL)).state for one in (busy, wrong)}
    assert found == {busy: EndpointState.ACTIVE, wrong: EndpointState.SUSPENDED}
    assert sorted(told.states()) == ["dead", "waiting"]
    mail.box.refusals = {}
    told.hurry()
    deliver(told.stores, both(mail.sender))
    assert [message["To"] for message in mail.box.messages] == ["busy@example.com"]


def test_a_mail_server_that_is_away_costs_nothing_but_time(told: Platform, settings: Settings) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.EMAIL, "ann@example.com")
    told.tell("to all")
    told.fan_out()
    nobody = settings.notifications.model_copy(
        update={"smtp_host": "127.0.0.1", "smtp_port": 9, "smtp_security": "none"}
    )
    deliver(told.stores, both(EmailSender(nobody, "https://d.example", "a key")))
    assert told.states() == ["waiting"]
    assert told.stores.database.run(endpoints.get(reader, Channel.EMAIL)).state is EndpointState.ACTIVE


def test_an_address_gets_nothing_but_its_confirmation_until_it_is_confirmed(told: Platform, mail: Mail) -> None:
    reader = told.reader("reader")
    endpoint = told.register(reader, Channel.EMAIL, "ann@example.com", "unconfirmed")
    told.stores.database.run(sendings.add(Purpose.CONFIRM, reader, Channel.EMAIL, endpoint))
    told.tell("before")
    told.fan_out()
    deliver(told.stores, both(mail.sender))
    assert [message["Subject"] for message in mail.box.messages] == ["Confirm your e-mail address"]
    assert mail.box.messages[0]["List-Unsubscribe"] is None
    told.stores.database.run(endpoints.confirm(endpoint))
    told.tell("after")
    told.fan_out()
    deliver(told.stores, both(mail.sender))
    assert [message["Subject"] for message in mail.box.messages[1:]] == ["Maintenance"]


def test_a_confirmation_of_an_address_that_was_changed_goes_nowhere(told: Platform, mail: Mail) -> None:
    reader = told.reader("reader")
    old = told.register(reader, Channel.EMAIL, "old@example.com", "unconfirmed")
    told.stores.database.run(sendings.add(Purpose.CONFIRM, reader, Channel.EMAIL, old))
    told.register(reader, Channel.EMAIL, "new@example.com", "unconfirmed")
    deliver(told.stores, both(mail.sender))
    assert mail.box.messages == []
    assert told.rows("select state from sendings") == [{"state": "suppressed"}]


def test_addresses_and_secrets_are_nowhere_in_the_database_in_the_clear(told: Platform) -> None:
    reader = told.reader("reader")
    told.register(reader, Channel.EMAIL, "ann.secret@example.com")
    told.register(reader, Channel.WEBHOOK, HOOK)
    [row] = told.rows(
        "select json_agg(endpoints)::text || string_agg(encode(address, 'escape'), ' ') as dump from endpoints"
    )
    assert not any(part in str(row["dump"]) for part in ("ann.secret", "secret=42", SECRET, json.dumps(HOOK)))
