"""What short questions to Valkey have in common: a bounded wait, and no second one while it is away."""

from __future__ import annotations

import time
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from storage.settings import RedisSettings

WAIT_SECONDS = 0.25
AWAY_SECONDS = 2.0


class Breaker:
    """Closed while Valkey answers. A failure opens it: for a while nobody asks, so that only one request in
    AWAY_SECONDS pays for the wait. `failures` counts the questions that got no answer, also those not asked."""

    def __init__(self) -> None:
        self._away_until = 0.0
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether asking is not worth the wait."""
        return time.monotonic() < self._away_until

    def fail(self, questions: int = 1) -> None:
        """Note that Valkey did not answer."""
        self.failures += questions
        self._away_until = time.monotonic() + AWAY_SECONDS


def short_client(settings: RedisSettings) -> Any:
    """A client that waits at most WAIT_SECONDS and tries nothing twice. (Held as Any: its types are partial.)"""
    return cast(Any, Redis).from_url(
        settings.url.get_secret_value(),
        socket_timeout=WAIT_SECONDS,
        socket_connect_timeout=WAIT_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
