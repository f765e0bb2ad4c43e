"""What readers are notified of, on which channel, how often, and when it must wait.

A **notification** is one event worth a notification. A **delivery** is one notification for one reader on one channel;
it ends sent (on its own), folded (into one message with others), suppressed (no longer wanted when its time came) or
dead (given up). A **sending** is one e-mail, webhook call, push or chat message, whose id stays the same over its
retries.

To add a type: one struct here, in `Content`; the type checker then asks flows/notifications/messages.py for its words.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import ClassVar, TypeAlias, cast, get_args
from uuid import UUID

import msgspec

from storage.records.notifications.channels import OUTWARD, Channel


class Frequency(StrEnum):
    """How soon a reader wants to be notified. Digests carry everything since the last one."""

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


_EVERYWHERE: Mapping[Channel, Frequency] = dict.fromkeys(Channel, Frequency.NOW)
_DIGESTED: Mapping[Channel, Frequency] = {
    **_EVERYWHERE,
    **{channel: Frequency.DAILY for channel, outward in OUTWARD.items() if outward.digests},
}
_ON_REQUEST = dict.fromkeys(Channel, Frequency.NEVER)


class _Content(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """What all types share. `default_frequencies` is how often a reader who has set nothing is notified; `about`
    explains the type."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _EVERYWHERE
    about: ClassVar[str]
    family: ClassVar[str] = ""
    """Types of one family that come within a moment interrupt a reader once; those of none do so at once."""
    always: ClassVar[bool] = False
    """Whether quiet hours do not hold it back."""

    @property
    def type(self) -> str:
        """The stable name, for example job_finished."""
        return cast(str, self.__struct_config__.tag)


class JobFinished(_Content, frozen=True, kw_only=True, tag="job_finished"):
    """A job of the reader's is done. `model_name` is set when it made a model version."""

    about: ClassVar[str] = "A job of yours is done."
    family: ClassVar[str] = "jobs"
    job_id: UUID
    job_kind: str
    model_id: int | None = None
    model_name: str | None = None


class JobFailedNotice(_Content, frozen=True, kw_only=True, tag="job_failed"):
    """A job of the reader's cannot be done."""

    about: ClassVar[str] = "A job of yours failed."
    family: ClassVar[str] = "jobs"
    job_id: UUID
    job_kind: str
    reason: str


class SampleReadyNotice(_Content, frozen=True, kw_only=True, tag="sample_ready"):
    """A running job of the reader's made a sample image. There are many, so a reader asks for them."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _ON_REQUEST
    about: ClassVar[str] = "A running job of yours made a sample image."
    family: ClassVar[str] = "samples"
    job_id: UUID
    name: str
    step: int


class VersionPublished(_Content, frozen=True, kw_only=True, tag="version_published"):
    """Somebody whom the reader follows published a model version."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "Somebody you follow published a model version."
    family: ClassVar[str] = "releases"
    model_id: int
    model_name: str
    model_version_id: int
    version_name: str
    by: str


class NewFollower(_Content, frozen=True, kw_only=True, tag="new_follower"):
    """Somebody follows the reader."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "Somebody follows you."
    family: ClassVar[str] = "followers"
    by: str


class Commented(_Content, frozen=True, kw_only=True, tag="comment"):
    """Somebody commented on what is the reader's, or replied to a comment of the reader's."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "Somebody commented on something of yours, or replied to you."
    family: ClassVar[str] = "comments"
    comment_id: int
    by: str
    on: str
    model_id: int | None
    excerpt: str


class Mentioned(_Content, frozen=True, kw_only=True, tag="mention"):
    """Somebody mentioned the reader in a comment. Who is mentioned is not notified of the comment as well."""

    about: ClassVar[str] = "Somebody mentioned you in a comment."
    family: ClassVar[str] = "comments"
    comment_id: int
    by: str
    on: str
    model_id: int | None
    excerpt: str


class ReactionMilestone(_Content, frozen=True, kw_only=True, tag="reaction_milestone"):
    """A model of the reader's has been given so many thumbs up."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "A model of yours was given many thumbs up."
    family: ClassVar[str] = "milestones"
    model_id: int
    model_name: str
    count: int


class DownloadMilestone(_Content, frozen=True, kw_only=True, tag="download_milestone"):
    """A model of the reader's has been downloaded so often."""

    default_frequencies: ClassVar[Mapping[Channel, Frequency]] = _DIGESTED
    about: ClassVar[str] = "A model of yours was downloaded often."
    family: ClassVar[str] = "milestones"
    model_id: int
    model_name: str
    count: int


class SystemNotice(_Content, frozen=True, kw_only=True, tag="system"):
    """What the operator says: maintenance, an alert. `path` is a page of ours that says more."""

    about: ClassVar[str] = "News of the platform itself."
    always: ClassVar[bool] = True
    title: str
    text: str
    path: str = ""


Content: TypeAlias = (
    JobFinished
    | JobFailedNotice
    | SampleReadyNotice
    | VersionPublished
    | NewFollower
    | Commented
    | Mentioned
    | ReactionMilestone
    | DownloadMilestone
    | SystemNotice
)

TYPES: Mapping[str, type[_Content]] = {
    cast(str, kind.__struct_config__.tag): kind for kind in cast("tuple[type[_Content], ...]", get_args(Content))
}
"""Every type by its name."""


MILESTONES = (10, 50, 100, 500, 1000, 5000, 10_000, 50_000, 100_000, 500_000, 1_000_000)
"""Counts that owners are notified of. Where several are passed at once, the highest alone counts."""
EXCERPT = 200
"""Characters of a comment that a notification shows."""


def allowed(channel: Channel, frequency: Frequency) -> bool:
    """Whether a channel can be asked for a frequency: what is shown in a list needs no digest."""
    return channel in OUTWARD or frequency in (Frequency.NOW, Frequency.NEVER)


class Audience(StrEnum):
    """Whom a notification is for."""

    ACCOUNTS = "accounts"
    FOLLOWERS = "followers"
    EVERYONE = "everyone"


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """An event worth a notification. `readers` are numbers of accounts: its readers, or those whom its readers
    follow."""

    id: int
    key: str
    type: str
    details: dict[str, object]
    audience: Audience
    readers: tuple[int, ...]
    created_at: datetime

    def content(self) -> Content:
        """What it says. Raises msgspec.ValidationError when the details do not fit the type."""
        return msgspec.convert({**self.details, "type": self.type}, Content, strict=False)


class NotificationText(msgspec.Struct, frozen=True, kw_only=True):
    """What a notification says in words: one line, a few sentences, and the path of a page with more ("" for none)."""

    title: str
    text: str
    path: str = ""


class Preference(msgspec.Struct, frozen=True, kw_only=True):
    """How often one reader wants to be notified of one type on one channel."""

    type: str
    channel: Channel
    frequency: Frequency
