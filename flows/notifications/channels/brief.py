"""A parcel in a few lines, for channels that show little."""

from __future__ import annotations

from dataclasses import dataclass

from flows.notifications.channels.protocol import Parcel
from storage.postgres.notifications.sendings import Purpose


@dataclass(frozen=True)
class Brief:
    """One line, a few more, and the address of a page with more."""

    title: str
    text: str
    link: str


def brief(parcel: Parcel, public_url: str) -> Brief:
    """What a parcel says. Several notifications are counted and named, with the page of the first that has one."""
    if parcel.purpose is not Purpose.NOTIFY:
        return Brief("A test from Darkroom", "It works: you can be told here.", public_url)
    words = [item.words for item in parcel.items]
    path = next((one.path for one in words if one.path), "")
    if len(words) == 1:
        return Brief(words[0].title, words[0].text, public_url + path)
    text = "\n".join(one.title for one in words)
    return Brief(f"{len(words)} notifications: {words[0].title}", text, public_url + path)
