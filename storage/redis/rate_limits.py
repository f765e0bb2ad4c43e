"""How often one caller may ask, counted in Valkey for all processes of the API.

By the generic cell rate algorithm: one number for each caller, the moment at which its whole allowance is back. Unlike
counters of fixed windows it lets nobody have two allowances around the turn of a minute, and unlike a log of requests
it is as small for a thousand requests as for one.

These limits are politeness: while Valkey is unavailable everybody is admitted, and that is counted. A slow Valkey is
not unavailable: requests wait for it, PATIENCE_SECONDS at most. What costs money is limited in Postgres.

Not Litestar's middleware: it keeps the moment of each request, reads and writes them in two steps that only a lock of
its own process holds together, and fails with its store. Here one script in Valkey decides, for all requests that wait
at that moment in one round trip.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from storage.batches import Batches
from storage.redis.breaker import Breaker, ValkeyUnavailable, short_client
from storage.settings import RedisSettings

WINDOW_SECONDS = 60
# With 0.25 s of wall time a busy process took Valkey for absent, and admitted 120 requests of 20.
PATIENCE_SECONDS = 2.0
_SCRIPT = Path(__file__).with_suffix(".lua").read_text()


@dataclass(frozen=True)
class Allowance:
    """`limit` requests a minute for a caller, all at once or spread. `name` says who, and for what kind of request."""

    name: str
    limit: int


@dataclass(frozen=True)
class Verdict:
    """Whether a request is admitted. `remaining`: how many more are at this moment. `reset_seconds`: until the whole
    allowance is back. `retry_seconds`: until the next request is admitted. Both rounded up."""

    admitted: bool
    limit: int
    remaining: int
    reset_seconds: int
    retry_seconds: int


class RateLimits:
    """Counts requests. Those that come together are counted in one call."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client = short_client(settings)
        self._script: Any = self._client.register_script(_SCRIPT)
        self._batches = Batches[Allowance, Verdict | None](self._count)
        self.breaker = Breaker(self._client, PATIENCE_SECONDS)

    async def count(self, allowance: Allowance) -> Verdict | None:
        """Count one request; None while Valkey is unavailable."""
        return await self._batches.ask(allowance)

    async def _count(self, allowances: list[Allowance]) -> Sequence[Verdict | None]:
        names = [f"limit:{allowance.name}" for allowance in allowances]
        limits = [allowance.limit for allowance in allowances]
        try:
            found = cast(
                list[int],
                await self.breaker.ask(
                    lambda: self._script(keys=names, args=[WINDOW_SECONDS * 1_000_000, *limits]), len(allowances)
                ),
            )
        except ValkeyUnavailable:
            return [None] * len(allowances)
        return [_verdict(limit, found[place * 4 : place * 4 + 4]) for place, limit in enumerate(limits)]

    async def close(self) -> None:
        """Give the connections back."""
        await self.breaker.close()


def _verdict(limit: int, numbers: Sequence[int]) -> Verdict:
    admitted, remaining, reset, retry = numbers
    return Verdict(bool(admitted), limit, remaining, -(-reset // 1_000_000), -(-retry // 1_000_000))
