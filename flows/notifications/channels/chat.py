"""Chat services, through apprise: one message to a channel that its owner named by the service's own secret.

apprise calls the services with `requests`, which takes no transport of ours. What keeps such a call outside instead:
the host is a constant of the service's class (storage/records/notifications/chat.py lists them, and a test sees where
each calls); nothing of an address but letters, digits and the like reaches the class, so no template file, no proxy and
no switch for certificates; redirects are not followed; and a call that hangs is left behind when its time is over.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import TypeVar

from apprise import Apprise, AppriseAsset, NotifyFormat
from apprise.common import OverflowMode
from apprise.plugins.base import NotifyBase
from apprise.plugins.discord import NotifyDiscord
from apprise.plugins.google_chat import NotifyGoogleChat
from apprise.plugins.slack import NotifySlack
from apprise.plugins.telegram import NotifyTelegram

from flows.notifications.channels.protocol import Message, Outcome, PermanentFailure, Sender, Sent, TemporaryFailure
from flows.notifications.channels.summary import Summary, summarize
from storage.records.notifications.chat import ChatAddress, Service, read_chat_address
from storage.settings import Settings

T = TypeVar("T")

_PLUGINS: Mapping[Service, type[NotifyBase]] = {
    Service.DISCORD: NotifyDiscord,
    Service.SLACK: NotifySlack,
    Service.TELEGRAM: NotifyTelegram,
    Service.GOOGLE_CHAT: NotifyGoogleChat,
}
_ENDED = frozenset({"401", "403", "404", "410"})
"""The secret is not valid any more, or the channel is gone."""
_RINGS = re.compile(r"[@<!](?=\S)")
_STATUS = re.compile(r"error=([0-9]{3})\b")


class ChatSender:
    """Sends messages as chat messages."""

    def __init__(self, seconds: float, public_url: str) -> None:
        self._seconds, self._public_url = seconds, public_url
        self._asset = AppriseAsset(
            app_id="Darkroom", app_url=public_url, http_redirects=False, image_url_mask="", image_url_logo=""
        )

    def send(self, message: Message) -> Outcome:
        """Post a message, within the time for one call. What a service says of a secret that ended, ends the
        address."""
        address, summary = read_chat_address(message.address), summarize(message, self._public_url)
        log_line = _LastLogLine()
        try:
            taken = _within(self._seconds, lambda: self._post(address, summary, log_line))
        except TimeoutError:
            return TemporaryFailure(f"{address.service} took more than {self._seconds:g} s")
        if taken:
            return Sent()
        reason = f"{address.service} did not take it: {log_line.last}"
        status = _STATUS.search(log_line.last)
        return PermanentFailure(reason) if status is not None and status[1] in _ENDED else TemporaryFailure(reason)

    def _post(self, address: ChatAddress, summary: Summary, log_line: _LastLogLine) -> bool:
        plugin = _PLUGINS[address.service](asset=self._asset, **address.parts)
        # The library says yes or no; why not is a warning in its log. Its other lines hold the secret: they end here.
        plugin.logger = logging.Logger("chat", logging.WARNING)
        plugin.logger.addHandler(log_line)
        plugin.socket_connect_timeout = plugin.socket_read_timeout = self._seconds
        # By default a long text is sent as it is, which a service may refuse.
        plugin.overflow_mode = OverflowMode.TRUNCATE
        messenger = Apprise(asset=self._asset)
        messenger.add(plugin)
        body = f"{_plain(summary.text)}\n{summary.link}"
        return bool(messenger.notify(title=_plain(summary.title), body=body, body_format=NotifyFormat.TEXT))


def sender(settings: Settings) -> Sender:
    """What sends chat messages."""
    return ChatSender(settings.notifications.call_seconds, settings.api.public_url)


class _LastLogLine(logging.Handler):
    """Keeps the last line that was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.last = "it does not say why"

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


def _plain(text: str) -> str:
    """Without what rings everybody: @everyone, <users/all>, <!channel>, and !channel, which apprise makes that of.

    Others may have written it. A blank that is not seen stands behind each sign that begins such a thing.
    """
    return _RINGS.sub("\\g<0>\u200b", text)


def _within(seconds: float, work: Callable[[], T]) -> T:
    """What `work` returns. Raises TimeoutError when that takes longer: its thread is left behind and ends by itself."""
    result: Future[T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            result.set_exception(error)

    threading.Thread(target=run, name="chat call", daemon=True).start()
    return result.result(seconds)
