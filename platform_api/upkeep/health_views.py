"""Responses of the health routes."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta


class RelayHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Committed events that still wait for their effect, and what carries them there."""

    waiting: int
    oldest_seconds: float
    dead: Annotated[int, Meta(description="Events whose effect failed ten times.")]
    failing: Annotated[
        list[str],
        Meta(description="Duties of the relay that have not succeeded for too long; all: it is unavailable."),
    ]


class SearchHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether searches work, and how far they are behind the catalogue. Ages are in seconds."""

    state: Annotated[str, Meta(examples=["ok"])]
    waiting: Annotated[int, Meta(description="Changed rows that searches do not show yet.")]
    oldest_seconds: Annotated[float, Meta(description="Age of the oldest change that waits, counts aside.")]
    oldest_counts_seconds: Annotated[float, Meta(description="Age of the oldest change of counts that waits.")]
    dead_letters: Annotated[int, Meta(description="Rows that could not be indexed.")]


class MetricsHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How fresh the counts of the catalogue are."""

    state: Annotated[str, Meta(examples=["fresh"], description="`fresh`, `due` or `late`; see /api/v1/freshness.")]
    waiting: Annotated[int, Meta(description="Batches of counted acts that no roll-up has taken.")]
    oldest_seconds: float
    alerts: Annotated[list[str], Meta(description="Alerts that are raised now.")]


class NotificationsHealth(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What readers should have been notified of by now. The age is in seconds."""

    waiting: Annotated[int, Meta(description="Notifications, deliveries and sendings that wait.")]
    oldest_seconds: Annotated[float, Meta(description="How late the oldest of them is.")]
    dead_letters: Annotated[
        int, Meta(description="Sendings that were given up, and notifications that cannot be delivered.")
    ]
    of_other_releases: Annotated[
        int, Meta(description="Deliveries and sendings due on channels that only another release knows.")
    ]


class Parts(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Each part: `ok` or `unavailable`; Postgres also `busy`, when it responds and every connection is in use."""

    postgres: Annotated[str, Meta(examples=["ok"])]
    valkey: Annotated[str, Meta(examples=["ok"])]
    relay: RelayHealth | None
    search: SearchHealth | None
    metrics: MetricsHealth | None
    notifications: NotificationsHealth | None


class HealthView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """`ok`; `degraded` when something is slower or late; `down` when requests cannot be served."""

    status: Annotated[str, Meta(examples=["ok"])]
    parts: Parts
    refusals: Annotated[dict[str, int], Meta(description="Requests refused since the start, by reason.")]


class Readiness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whether requests can be served now: `ok`, `degraded` (slower or late), `down`."""

    status: Annotated[str, Meta(examples=["ok"])]


class Liveness(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """That the process responds."""

    status: Annotated[str, Meta(examples=["ok"])]
