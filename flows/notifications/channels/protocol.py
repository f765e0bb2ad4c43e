"""What a channel does: it takes one message to one address and says how that went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

from storage.postgres.notifications.sendings import Purpose
from storage.records.notifications.notifications import NotificationText


@dataclass(frozen=True)
class Item:
    """One notification in a message."""

    id: int
    type: str
    text: NotificationText
    details: dict[str, object]
    created_at: datetime


@dataclass(frozen=True)
class Message:
    """One sending, with its address and secrets open. `id` and `created_at` stay the same over retries."""

    id: UUID
    purpose: Purpose
    reader: int
    endpoint_id: UUID
    address: str
    secrets: Sequence[str]
    items: Sequence[Item]
    created_at: datetime
    sealed_before: bool = False
    """Whether the address was registered, and sealed, under the previous sealing key."""


@dataclass(frozen=True)
class Sent:
    """The other side has taken it."""


@dataclass(frozen=True)
class TemporaryFailure:
    """It was not taken, and may be later; not before `after_seconds` if the other side asked for that."""

    reason: str
    after_seconds: float = 0.0


@dataclass(frozen=True)
class PermanentFailure:
    """It will never be taken at this address, which is used no more until its reader registers it again."""

    reason: str


Outcome: TypeAlias = Sent | TemporaryFailure | PermanentFailure


class Sender(Protocol):
    """One channel. `send` raises nothing for what the other side does: that is an outcome."""

    def send(self, message: Message) -> Outcome:
        """Take a message to its address, within the settings' time for one call."""
        ...
