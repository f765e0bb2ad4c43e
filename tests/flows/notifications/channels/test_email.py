"""E-mail: in text and HTML, stopped with one click, and nothing but a confirmation to who has not confirmed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from uuid import UUID

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import Envelope

from flows.notifications.channels.email import EmailSender
from flows.notifications.channels.protocol import Item, Message
from flows.notifications.deliver import deliver
from storage.postgres.notifications import endpoints, sendings
from storage.postgres.notifications.endpoints import EndpointState
from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.channels import Channel
from storage.records.notifications.notification_links import Unsubscribe
from storage.records.notifications.notifications import NotificationText, SystemNotice
from storage.records.policy.signed_links import SigningKeys
from storage.settings import NotificationSettings, Settings
from storage.signing import read_email_link
from tests.conftest import free_port
from tests.flows.notifications.conftest import Notifier, both

KEYS = SigningKeys(current="a key")


class Mailbox:
    """What a mail server does with what it is handed: `refusals` maps a receiver to its response."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []
        self.refusals: dict[str, str] = {}

    async def handle_RCPT(
        self, server: object, session: object, envelope: Envelope, address: str, options: object
    ) -> str:
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: object, session: object, envelope: Envelope) -> str:
        content = envelope.original_content
        assert content is not None
        self.messages.append(message_from_bytes(content, policy=policy.default))
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
    yield Mail(box, EmailSender(served, "https://d.example", KEYS))
    controller.stop()


def test_an_email_says_it_in_text_and_html_and_can_be_stopped_with_one_click(notifier: Notifier, mail: Mail) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.EMAIL, "ann@example.com")
    notifier.notify("to all", SystemNotice(title="Maintenance <soon>", text="On Sunday.", path="/docs"))
    notifier.fan_out()
    deliver(notifier.stores, both(mail.sender))
    [message] = mail.box.messages
    [sending] = notifier.rows("select id from sendings")
    assert (message["To"], message["Subject"]) == ("ann@example.com", "Maintenance <soon>")
    assert message["Message-ID"] == f"<{sending['id']}@d.example>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = str(message["List-Unsubscribe"]).strip("<>")
    assert read_email_link(link.partition("token=")[2], Unsubscribe, KEYS) == Unsubscribe(
        reader=reader, types=("system",)
    )
    text, page = message.get_body(("plain",)), message.get_body(("html",))
    assert text is not None
    assert page is not None
    assert "On Sunday.\nhttps://d.example/docs" in text.get_content().replace("\r\n", "\n")
    assert link in text.get_content().replace("\r\n", "").replace("\n", "")
    assert "<h2 style='font-size:1.1em'>Maintenance &lt;soon&gt;</h2>" in page.get_content()


def test_an_address_that_bounces_for_good_is_suspended_and_one_that_is_busy_is_tried_again(
    notifier: Notifier, mail: Mail
) -> None:
    busy, wrong = notifier.reader("busy"), notifier.reader("wrong")
    notifier.register(busy, Channel.EMAIL, "busy@example.com")
    notifier.register(wrong, Channel.EMAIL, "wrong@example.com")
    mail.box.refusals = {"busy@example.com": "450 Try later", "wrong@example.com": "550 No such user"}
    notifier.notify("to all")
    notifier.fan_out()
    deliver(notifier.stores, both(mail.sender))
    found = {one: notifier.stores.database.run(endpoints.get(one, Channel.EMAIL)).state for one in (busy, wrong)}
    assert found == {busy: EndpointState.ACTIVE, wrong: EndpointState.SUSPENDED}
    assert sorted(notifier.states()) == ["dead", "waiting"]
    mail.box.refusals = {}
    notifier.hurry()
    deliver(notifier.stores, both(mail.sender))
    assert [message["To"] for message in mail.box.messages] == ["busy@example.com"]


def test_a_mail_server_that_is_unavailable_costs_nothing_but_time(notifier: Notifier, settings: Settings) -> None:
    reader = notifier.reader("reader")
    notifier.register(reader, Channel.EMAIL, "ann@example.com")
    notifier.notify("to all")
    notifier.fan_out()
    nobody = settings.notifications.model_copy(
        update={"smtp_host": "127.0.0.1", "smtp_port": 9, "smtp_security": "none"}
    )
    deliver(notifier.stores, both(EmailSender(nobody, "https://d.example", KEYS)))
    assert notifier.states() == ["waiting"]
    assert notifier.stores.database.run(endpoints.get(reader, Channel.EMAIL)).state is EndpointState.ACTIVE


def test_an_address_gets_nothing_but_its_confirmation_until_it_is_confirmed(notifier: Notifier, mail: Mail) -> None:
    reader = notifier.reader("reader")
    endpoint = notifier.register(reader, Channel.EMAIL, "ann@example.com", "unconfirmed")
    notifier.stores.database.run(sendings.add(Purpose.CONFIRM, reader, Channel.EMAIL, endpoint))
    notifier.notify("before")
    notifier.fan_out()
    deliver(notifier.stores, both(mail.sender))
    assert [message["Subject"] for message in mail.box.messages] == ["Confirm your e-mail address"]
    assert mail.box.messages[0]["List-Unsubscribe"] is None
    notifier.stores.database.run(endpoints.confirm(endpoint))
    notifier.notify("after")
    notifier.fan_out()
    deliver(notifier.stores, both(mail.sender))
    assert [message["Subject"] for message in mail.box.messages[1:]] == ["Maintenance"]


def test_a_confirmation_of_an_address_that_was_changed_goes_nowhere(notifier: Notifier, mail: Mail) -> None:
    reader = notifier.reader("reader")
    old = notifier.register(reader, Channel.EMAIL, "old@example.com", "unconfirmed")
    notifier.stores.database.run(sendings.add(Purpose.CONFIRM, reader, Channel.EMAIL, old))
    notifier.register(reader, Channel.EMAIL, "new@example.com", "unconfirmed")
    deliver(notifier.stores, both(mail.sender))
    assert mail.box.messages == []
    assert notifier.rows("select state from sendings") == [{"state": "suppressed"}]


STOP = (
    "https://d.example/api/v1/notifications/unsubscribe?token="
    "g6R0eXBlq3Vuc3Vic2NyaWJlpnJlYWRlcgOldHlwZXOSrGpvYl9maW5pc2hlZKZzeXN0ZW0.jLs7mwmtjue4fDJeQ_lLC6SefyLMwbIhtoV5O6p1dSw"
)
# What the e-mail said while it was put together by hand.
TEXT = f"""Your model <Ann's & co> is ready
It is "in" the catalogue.
Look.
https://d.example/api/v1/models/7?a=1&b=2

Maintenance
On Sunday.

--
No more e-mail of this kind: {STOP}
"""
PAGE = (
    "<!doctype html><html lang=en><body><h2 style='font-size:1.1em'>Your model &lt;Ann's &amp; co&gt; is ready</h2>"
    '<p>It is "in" the catalogue.\nLook.</p>'
    "<p><a href='https://d.example/api/v1/models/7?a=1&amp;b=2'>https://d.example/api/v1/models/7?a=1&amp;b=2</a></p>"
    "<h2 style='font-size:1.1em'>Maintenance</h2><p>On Sunday.</p>"
    f"<hr><p><a href='{STOP}'>No more e-mail of this kind</a></p></body></html>"
)


def a_message(purpose: Purpose, *words: NotificationText) -> Message:
    """A sending to reader 3 that carries these words."""
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    types = ("job_finished", "system")
    items = [
        Item(id=number, type=kind, text=said, details={}, created_at=moment)
        for number, (kind, said) in enumerate(zip(types, words, strict=False))
    ]
    return Message(UUID(int=1), purpose, 3, UUID(int=2), "ann@example.com", (), items, moment)


def parts_of(message: Message) -> tuple[str, str]:
    """The text and the HTML of a message's e-mail, line ends of the HTML's layout left out."""
    sender = EmailSender(NotificationSettings(sender="news@d.example"), "https://d.example", KEYS)
    mail = sender.mail(message)
    text, page = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert page is not None
    return text.get_content(), page.get_content().replace("&#39;", "'").replace("&#34;", '"').replace(">\n", ">")


def test_an_email_says_what_it_said_before_there_were_templates() -> None:
    model = NotificationText(
        title="Your model <Ann's & co> is ready",
        text='It is "in" the catalogue.\nLook.',
        path="/api/v1/models/7?a=1&b=2",
    )
    message = a_message(Purpose.NOTIFY, model, NotificationText(title="Maintenance", text="On Sunday.", path=""))
    assert parts_of(message) == (TEXT, PAGE)


def test_an_email_without_a_link_to_stop_it_ends_with_its_last_part() -> None:
    assert parts_of(a_message(Purpose.TEST)) == (
        "It works\nThis address receives notifications.\n",
        "<!doctype html><html lang=en><body><h2 style='font-size:1.1em'>It works</h2>"
        "<p>This address receives notifications.</p></body></html>",
    )


def test_no_name_that_somebody_chose_is_markup() -> None:
    title = "</h2><script>alert(1)</script>{{ 7 * 7 }}"
    text, page = parts_of(a_message(Purpose.NOTIFY, NotificationText(title=title, text="'><img src=x>", path="/a'b")))
    assert title in text
    assert "&lt;/h2&gt;&lt;script&gt;alert(1)&lt;/script&gt;{{ 7 * 7 }}" in page
    assert "<script" not in page
    assert "<img" not in page
