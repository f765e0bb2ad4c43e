"""A message in a few lines, for channels that show little."""

from __future__ import annotations

from dataclasses import dataclass

from flows.notifications.channels.protocol import Message
from storage.postgres.notifications.sendings import Purpose


@dataclass(frozen=True)
class Summary:
    """One line, a few more, and the address of a page with more."""

    title: str
    text: str
    link: str


def summarize(message: Message, public_url: str) -> Summary:
    """What a message says. Several notifications are counted and named, with the page of the first that has one."""
    if message.purpose is not Purpose.NOTIFY:
        return Summary("A test from Darkroom", "It works: you can be notified here.", public_url)
    texts = [item.text for item in message.items]
    path = next((one.path for one in texts if one.path), "")
    if len(texts) == 1:
        return Summary(texts[0].title, texts[0].text, public_url + path)
    text = "\n".join(one.title for one in texts)
    return Summary(f"{len(texts)} notifications: {texts[0].title}", text, public_url + path)
