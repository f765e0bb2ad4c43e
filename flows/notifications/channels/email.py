"""E-mail over SMTP: text and HTML, with one-click unsubscribe (RFC 8058).

The mail server is the operator's own, from the settings. The Message-ID is the sending's id, so that a repeat is known
as one. A receiver that is refused for good (5xx) ends the address; everything else that fails is tried again.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import threading
from collections.abc import Generator
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from typing import NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from flows.notifications.channels.protocol import Message, Outcome, PermanentFailure, Sender, Sent, TemporaryFailure
from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.notification_links import Confirm, Unsubscribe
from storage.records.policy.signed_links import SigningKeys
from storage.settings import NotificationSettings, Settings
from storage.signing import write_email_link

LINKS = "/api/v1/notifications"
_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(enabled_extensions=("html.jinja",)),
    # A name that a template does not get is an error of ours, not an empty place in somebody's mail.
    undefined=StrictUndefined,
    trim_blocks=True,
    keep_trailing_newline=True,
)


class EmailPart(NamedTuple):
    """One of the things that an e-mail says; `link` may be empty."""

    heading: str
    text: str
    link: str


class EmailSender:
    """Sends messages as e-mail."""

    def __init__(
        self,
        settings: NotificationSettings,
        public_url: str,
        signing_keys: SigningKeys,
        trust: ssl.SSLContext | None = None,
    ) -> None:
        self._settings, self._public_url, self._signing_keys = settings, public_url, signing_keys
        self._trust = trust or ssl.create_default_context()

    def send(self, message: Message) -> Outcome:
        """Hand one e-mail to the mail server."""
        if not self._settings.smtp_host:
            return TemporaryFailure("no mail server: set DARKROOM_NOTIFICATIONS__SMTP_HOST")
        mail, taken = self.mail(message), False
        try:
            with self._session() as server:
                server.send_message(mail, self._settings.sender, [message.address])
                taken = True
        except smtplib.SMTPRecipientsRefused as error:
            # There is one recipient.
            code, text = next(iter(error.recipients.values()))
            return _refused(code, text)
        except smtplib.SMTPDataError as error:
            return _refused(error.smtp_code, error.smtp_error)
        except (smtplib.SMTPException, OSError) as error:
            if taken:  # only the goodbye failed
                return Sent()
            return TemporaryFailure(f"the mail server: {type(error).__name__}: {str(error)[:200]}")
        return Sent()

    @contextlib.contextmanager
    def _session(self) -> Generator[smtplib.SMTP]:
        """A connection to the mail server, cut when the settings' time for one call is over."""
        settings = self._settings
        host, port, seconds = settings.smtp_host, settings.smtp_port, settings.call_seconds
        if settings.smtp_security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, timeout=seconds, context=self._trust)
        else:
            server = smtplib.SMTP(host, port, timeout=seconds)
        # Each operation of smtplib has the timeout for itself: a server that drips could hold a worker for ever.
        cut = threading.Timer(seconds, _cut, [server])
        cut.daemon = True
        cut.start()
        try:
            with server:
                if settings.smtp_security == "starttls":
                    server.starttls(context=self._trust)
                if settings.smtp_user:
                    server.login(settings.smtp_user, settings.smtp_password.get_secret_value())
                yield server
        finally:
            cut.cancel()

    def mail(self, message: Message) -> EmailMessage:
        """A message as an e-mail."""
        mail = EmailMessage(policy=SMTP)
        mail["From"], mail["To"] = self._settings.sender, message.address
        mail["Date"] = format_datetime(message.created_at)
        mail["Message-ID"] = f"<{message.id}@{self._settings.sender.rpartition('@')[2]}>"
        # RFC 3834: programs that reply by themselves, such as holiday notices, do not reply to this.
        mail["Auto-Submitted"] = "auto-generated"
        match message.purpose:
            case Purpose.CONFIRM:
                token = write_email_link(Confirm(endpoint_id=message.endpoint_id), self._signing_keys)
                link = f"{self._public_url}{LINKS}/confirm?token={token}"
                text = "Somebody, we hope you, asked Darkroom to write to this address. If it was not you, do nothing."
                _write(mail, "Confirm your e-mail address", [EmailPart("Confirm your e-mail address", text, link)], "")
            case Purpose.TEST:
                _write(
                    mail,
                    "A test from Darkroom",
                    [EmailPart("It works", "This address receives notifications.", "")],
                    "",
                )
            case Purpose.NOTIFY:
                self._notify(mail, message)
        return mail

    def _notify(self, mail: EmailMessage, message: Message) -> None:
        types = tuple(sorted({item.type for item in message.items}))
        token = write_email_link(Unsubscribe(reader=message.reader, types=types), self._signing_keys)
        stop = f"{self._public_url}{LINKS}/unsubscribe?token={token}"
        # Large mail providers ask for both headers of senders of many mails, and show a button for them.
        mail["List-Unsubscribe"] = f"<{stop}>"
        mail["List-Unsubscribe-Post"] = "List-Unsubscribe=One-Click"
        parts = [
            EmailPart(item.text.title, item.text.text, self._public_url + item.text.path if item.text.path else "")
            for item in message.items
        ]
        title = parts[0].heading if len(parts) == 1 else f"{len(parts)} notifications: {parts[0].heading}"
        _write(mail, title, parts, stop)


def sender(settings: Settings) -> Sender:
    """What sends e-mail."""
    return EmailSender(settings.notifications, settings.api.public_url, settings.api.signing_keys)


def _write(mail: EmailMessage, title: str, parts: list[EmailPart], stop: str) -> None:
    """Fill in the subject and both parts. `stop` is the address that ends e-mail of this kind; it may be empty."""
    mail["Subject"] = title
    text, page = (_TEMPLATES.get_template(f"email.{kind}.jinja") for kind in ("txt", "html"))
    mail.set_content(text.render(parts=parts, stop=stop))
    mail.add_alternative(page.render(parts=parts, stop=stop), subtype="html")


def _refused(code: int, text: bytes | str) -> Outcome:
    reply = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    reason = f"the mail server returned {code} {reply[:200]}"
    return PermanentFailure(reason) if 500 <= code < 600 else TemporaryFailure(reason)


def _cut(server: smtplib.SMTP) -> None:
    with contextlib.suppress(OSError):  # it was closed at this very moment
        if server.sock is not None:
            server.sock.shutdown(socket.SHUT_RDWR)
