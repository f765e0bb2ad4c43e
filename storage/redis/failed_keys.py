"""How many keys that do not work one address may send in a minute, counted in Valkey for all processes of the API.

A key is counted before Postgres is asked for it, and the count is taken back when it works: so those who make keys up
cost no more queries than the limit, however many they send at once, and working keys cost their neighbours nothing.
When Valkey does not respond every key is looked up.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from storage.redis.breaker import Breaker, ValkeyUnavailable, short_client
from storage.redis.rate_limits import PATIENCE_SECONDS
from storage.settings import RedisSettings

WINDOW_SECONDS = 60
WORKED_SECONDS = 3600
"""How long a key that worked is looked up whatever its address has sent besides."""
_SCRIPT = Path(__file__).with_suffix(".lua").read_text()
# Not below 0: the minute may have ended meanwhile, and DECR would begin a count of -1 that never expires.
_TAKE_BACK = """
if (tonumber(redis.call('GET', KEYS[1])) or 0) > 0 then redis.call('DECR', KEYS[1]) end
if ARGV[1] ~= '0' then redis.call('SET', KEYS[2], 1, 'EX', ARGV[1]) end
"""


@dataclass(frozen=True)
class Admission:
    """Whether a key may be looked up: at once (0), or the next one in so many seconds; and whether it was counted."""

    wait_seconds: int
    counted: bool


_UNCOUNTED = Admission(0, counted=False)


class FailedKeys:
    """Counts keys that nobody knows yet. `key` is a digest of a key's text, never the text."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client = short_client(settings)
        self._script: Any = self._client.register_script(_SCRIPT)
        self._take_back: Any = self._client.register_script(_TAKE_BACK)
        self.breaker = Breaker(self._client, PATIENCE_SECONDS)

    async def admit(self, address: str, key: str, limit: int) -> Admission:
        """Count a key before it is looked up, and say whether it may be."""
        if limit == 0:
            return _UNCOUNTED
        keys, arguments = [_count(address), _mark(key)], [limit, WINDOW_SECONDS * 1000]
        try:
            wait = int(cast(int, await self.breaker.ask(lambda: self._script(keys=keys, args=arguments))))
        except ValkeyUnavailable:
            return _UNCOUNTED
        return Admission(-(-max(wait, 0) // 1000), counted=wait == 0)

    async def take_back(self, address: str, key: str, *, works: bool) -> None:
        """A key that was counted did not fail: it works, or Postgres did not say."""
        keys, arguments = [_count(address), _mark(key)], [WORKED_SECONDS if works else 0]
        with contextlib.suppress(ValkeyUnavailable):
            await self.breaker.ask(lambda: self._take_back(keys=keys, args=arguments))

    async def forget(self, key: str) -> None:
        """A key works no more, so it is looked up no sooner than any other that does not work."""
        with contextlib.suppress(ValkeyUnavailable):
            await self.breaker.ask(lambda: self._client.delete(_mark(key)))

    async def close(self) -> None:
        """Give the connections back."""
        await self.breaker.close()


def _count(address: str) -> str:
    return f"failed-keys:{address}"


def _mark(key: str) -> str:
    return f"worked-key:{key}"
