"""What readers are told, on which channel, how often, and when it must wait.

A **notification** is one event worth telling. A **delivery** is one notification for one reader on one channel; it ends
sent (told on its own), folded (told together with others), suppressed (no longer wanted when its time came) or dead
(given up). A **sending** is one e-mail or webhook call, whose id stays the same over its retries.

To add a type: one struct here, in `Content`; the type checker then asks flows/notifications/messages.py for its words.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import ClassVar, TypeAlias, cast, get_args
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec


class Channel(StrEnum):
    """How a reader is told."""

    IN_APP = "in_app"
    EMAIL = "email"
    WEBHOOK = "webhook"


OUTWARD = (Channel.EMAIL, Channel.WEBHOOK)
"""Channels that leave the platform: they need a registered address and a sending."""
INTERRUPTS = frozenset({Channel.EMAIL})
"""Channels that keep quiet hours; the others wake nobody."""


class Frequency(StrEnum):
    """How soon a reader wants to be told. Digests carry everything since the last one."""

    NOW = "now"
    HOURLY = "hourly"
    DAILY = "daily"
    NEVER = "never"


class DeliveryState(StrEnum):
    """Where a delivery is. All but `waiting` are ends."""

    WAITING = "waiting"
    SENT = "sent"
    FOLDED = "folded"
    SUPPRESSED = "suppressed"
    DEAD = "dead"


def _usually(in_app: Frequency, email: Frequency, webhook: Frequency) -> Mapping[Channel, Frequency]:
    return {Channel.IN_APP: in_app, Channel.EMAIL: email, Channel.WEBHOOK: webhook}


_EVERYWHERE = _usually(Frequency.NOW, Frequency.NOW, Frequency.NOW)
_DIGESTED = _usually(Frequency.NOW, Frequency.DAILY, Frequency.NOW)


class _Content(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all types share. `usual` is how often a reader who said nothing is told; `about` explains the type."""

    usual: ClassVar[Mapping[Channel, Frequency]] = _EVERYWHERE
    about: ClassVar[str]
    always: ClassVar[bool] = False
    """Whether quiet hours do not hold it back."""

    @property
    def type(self) -> str:
        """The stable name, for example job_finished."""
        return cast(str, self.__struct_config__.tag)


class JobFinished(_Content, frozen=True, kw_only=True, tag="job_finished"):
    """A job of the reader's is done. `model_name` is set when it made a model version."""

    about: ClassVar[str] = "A job of yours is done."
    job_id: UUID
    job_kind: str
    model_id: int | None = None
    model_name: str | None = None


class JobFailed(_Content, frozen=True, kw_only=True, tag="job_failed"):
    """A job of the reader's cannot be done."""

    about: ClassVar[str] = "A job of yours failed."
    job_id: UUID
    job_kind: str
    reason: str


class SampleReady(_Content, frozen=True, kw_only=True, tag="sample_ready"):
    """A running job of the reader's made a sample image. There are many, so a reader asks for them."""

    usual: ClassVar[Mapping[Channel, Frequency]] = _usually(Frequency.NEVER, Frequency.NEVER, Frequency.NEVER)
    about: ClassVar[str] = "A running job of yours made a sample image."
    job_id: UUID
    name: str
    step: int


class VersionPublished(_Content, frozen=True, kw_only=True, tag="version_published"):
    """A model version is in the catalogue."""

    usual: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "A model version was published."
    model_id: int
    model_name: str
    model_version_id: int
    version_name: str
    by: str


class SystemNotice(_Content, frozen=True, kw_only=True, tag="system"):
    """What the operator says: maintenance, an alarm. `path` is a page of ours that says more."""

    about: ClassVar[str] = "News of the platform itself."
    always: ClassVar[bool] = True
    title: str
    text: str
    path: str = ""


Content: TypeAlias = JobFinished | JobFailed | SampleReady | VersionPublished | SystemNotice

TYPES: Mapping[str, type[_Content]] = {
    cast(str, kind.__struct_config__.tag): kind for kind in cast("tuple[type[_Content], ...]", get_args(Content))
}
"""Every type by its name."""


def allowed(channel: Channel, frequency: Frequency) -> bool:
    """Whether a channel can be asked for a frequency: what is shown in a list needs no digest."""
    return channel in OUTWARD or frequency in (Frequency.NOW, Frequency.NEVER)


class Audience(StrEnum):
    """Whom a notification is for."""

    ACCOUNTS = "accounts"
    EVERYONE = "everyone"


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """An event worth telling. `readers` are numbers of accounts, for the audience `accounts`."""

    id: int
    key: str
    type: str
    details: dict[str, object]
    audience: Audience
    readers: tuple[int, ...]
    created_at: datetime

    def content(self) -> Content:
        """What it says. Raises msgspec.ValidationError when the details do not fit the type."""
        return msgspec.convert({**self.details, "type": self.type}, Content, strict=False)  # pyright: ignore[reportReturnType, reportArgumentType]


class Words(msgspec.Struct, frozen=True, kw_only=True):
    """What a notification says in words: one line, a few sentences, and the path of a page with more ("" for none)."""

    title: str
    text: str
    path: str = ""


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """How often one reader wants to be told of one type on one channel."""

    type: str
    channel: Channel
    frequency: Frequency


class QuietHours(msgspec.Struct, frozen=True, kw_only=True):
    """When a reader is not to be woken: from `start` to `end` on the clocks of `zone` (an IANA name)."""

    zone: str
    start: time
    end: time


def quiet_until(quiet: QuietHours | None, now: datetime) -> datetime | None:
    """The moment (UTC) when the quiet hours that `now` lies in end; None outside them.

    Computed when something is to be sent, from the reader's clocks on that day. Where clocks change within them, quiet
    hours are never shorter than asked: an hour that comes twice ends with its second, one that is left out counts.
    """
    if quiet is None or quiet.start == quiet.end:
        return None
    zone = ZoneInfo(quiet.zone)
    today = now.astimezone(zone).date()
    ends: list[datetime] = []
    for day in (today - timedelta(days=1), today):
        last = day if quiet.start < quiet.end else day + timedelta(days=1)
        begin, end = min(_moments(day, quiet.start, zone)), max(_moments(last, quiet.end, zone))
        if begin <= now < end:
            ends.append(end)
    return max(ends, default=None)


def _moments(day: date, clock: time, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """Both readings of a clock's time: they differ where clocks change."""
    local = datetime.combine(day, clock, zone)
    return local.astimezone(UTC), local.replace(fold=1).astimezone(UTC)


DIGEST_HOUR = 8
"""Daily digests leave at this hour of the reader's clocks."""


def digest_time(frequency: Frequency, zone: str, now: datetime) -> datetime:
    """When what came up at `now` is told: at once, at the next full hour, or at eight on the reader's clocks."""
    match frequency:
        case Frequency.HOURLY:
            return now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
        case Frequency.DAILY:
            place = ZoneInfo(zone)
            today = now.astimezone(place).date()
            days = (today + timedelta(days=ahead) for ahead in range(3))
            moments = (max(_moments(day, time(DIGEST_HOUR), place)) for day in days)
            return next(moment for moment in moments if moment > now)
        case Frequency.NOW | Frequency.NEVER:
            return now


RETRY_SECONDS = (10.0, 60.0, 300.0, 1800.0, 7200.0, 28800.0, 86400.0)
"""Pauses after each failed try of a sending, 10 % more or less. After the last try it is dead: some 34 hours in all."""
JITTER = 0.1
MAX_ATTEMPTS = len(RETRY_SECONDS) + 1


def retry_pause(attempts: int, chance: random.Random) -> float | None:
    """Seconds until the next try after `attempts` of them failed; None when that was the last."""
    if attempts >= MAX_ATTEMPTS:
        return None
    return RETRY_SECONDS[attempts - 1] * chance.uniform(1 - JITTER, 1 + JITTER)
