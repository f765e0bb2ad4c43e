"""The channels on which readers are notified. This mapping is the only one: the rest follows it.

To add a channel, add a line to `Channel` and the file flows/notifications/channels/NAME.py, whose function `sender`
makes what sends. From the line come its rows in the database, which `migrate` adds; its routes and their description;
the preferences of each type; what operators can pause; and the page of what there is to choose from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from storage.records.notifications import address_forms as forms


@dataclass(frozen=True, kw_only=True)
class Outward:
    """A channel that leaves the platform: it needs a registered address, and each of its calls is a sending."""

    form: forms.AnyForm
    called: str
    """What a reader calls an address of it, for example `webhook`."""
    interrupts: bool = False
    """Whether it keeps quiet hours, and waits a moment for more of what it is about to say."""
    digests: bool = False
    """Whether types that come often come once a day on it, for a reader who has set nothing."""
    confirmed: bool = False
    """Whether an address is used only after a link that was sent to it was followed."""
    signed: bool = False
    """Whether what is sent is signed with a secret of the address's own. Such an address is not confirmed by a link."""
    bound: bool = False
    """Whether addresses know us by our sealing key, and end with it."""
    setting: str = ""
    """The field of the notifications' settings without which nothing can be sent."""


class Channel(StrEnum):
    """How a reader is notified; `outward` is None for what stays in the app."""

    _value_: str
    about: str
    outward: Outward | None

    def __new__(cls, name: str, about: str, outward: Outward | None = None) -> Self:
        """A channel of this name."""
        made = str.__new__(cls, name)
        made._value_, made.about, made.outward = name, about, outward
        return made

    IN_APP = "in_app", "The list in the app."
    EMAIL = (
        "email",
        "An e-mail, with a link that ends e-mail of its kind.",
        Outward(
            form=forms.EMAIL_ADDRESS,
            called="e-mail address",
            interrupts=True,
            digests=True,
            confirmed=True,
            setting="smtp_host",
        ),
    )
    WEBHOOK = "webhook", "A signed POST.", Outward(form=forms.WEB_ADDRESS, called="webhook", signed=True)
    PUSH = (
        "push",
        "A web push message to a browser.",
        Outward(form=forms.PUSH_SUBSCRIPTION, called="push subscription", interrupts=True, bound=True),
    )
    CHAT = (
        "chat",
        "A message in a channel of a chat service.",
        Outward(form=forms.CHAT_ADDRESS, called="chat channel", interrupts=True),
    )


OUTWARD = {channel: channel.outward for channel in Channel if channel.outward is not None}
"""Channels that leave the platform, with what is particular to each."""
INTERRUPTS = frozenset(channel for channel, outward in OUTWARD.items() if outward.interrupts)
"""Channels that keep quiet hours; the others wake nobody."""
BOUND: frozenset[str] = frozenset(channel for channel, outward in OUTWARD.items() if outward.bound)
"""Channels whose addresses end with the sealing key that they were registered under."""
