"""Activity: counted acts. One act is counted once, by its key; what cannot be counted is rejected, with a reason."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

import msgspec

OLDEST = timedelta(days=7)
"""An act that comes later than this is rejected."""
EARLIEST = timedelta(minutes=5)
"""An act whose time is further ahead than this is rejected: somebody's clock is wrong."""
MAX_ACTIVITIES = 1000
"""Acts in one call from outside."""


class Counted(StrEnum):
    """What acts are counted for. A user is an account, by its number."""

    MODEL = "model"
    VERSION = "version"
    IMAGE = "image"
    COMMENT = "comment"
    USER = "user"


class Metric(StrEnum):
    """What is counted. The acts of the glossary, with a metric for each reaction."""

    VIEW = "view"
    DOWNLOAD = "download"
    GENERATION = "generation"
    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    LIKE = "like"
    DISLIKE = "dislike"
    LAUGH = "laugh"
    CRY = "cry"
    HEART = "heart"
    COMMENT = "comment"
    FOLLOW = "follow"
    TIP = "tip"


class Reason(StrEnum):
    """Why an act was rejected."""

    TOO_OLD = "too_old"
    TOO_EARLY = "too_early"
    NO_ENTITY = "no_entity"
    OTHER_TIME = "other_time"


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One act. `key` is its name where it comes from; `amount` is 1, or how much a tip gives."""

    key: str
    entity: Counted
    entity_id: int
    metric: Metric
    occurred_at: datetime
    amount: int = 1


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An act of a batch that was rejected, and why."""

    key_text: str
    reason: Reason


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the acts that came together: counted now, counted before, rejected."""

    id: int
    accepted: int
    repeated: int
    rejected: int
    refusals: tuple[Refusal, ...] = ()


class RejectedAct(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `activity_rejected`."""

    id: int
    batch_id: int
    key_text: str
    reason: Reason
    entity: Counted
    entity_id: int
    metric: Metric
    amount: int
    occurred_at: datetime
    noted_at: datetime


def key_of(source: str, text: str) -> UUID:
    """The key of an act among all (the first 128 bits of a SHA-256): two sources may use the same text."""
    return UUID(bytes=hashlib.sha256(f"{source}\n{text}".encode()).digest()[:16])
