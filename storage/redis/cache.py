"""Models ready to send, kept in this process and, for all processes, in Valkey.

Each is named by the model, the revision of its row, the epoch of the database (a restore begins another one) and the
way in which it is shown, so a name never means two things: there is nothing to invalidate, and what is stored late is
stored under a revision that nobody asks for any more. Revision and epoch to ask for come from Postgres with every
request (`catalog.revisions`), and so does whether the model may be shown at all. When Valkey is unavailable or empty,
models are built from their rows: slower, and the same.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from storage.byte_cache import ByteCache
from storage.redis.breaker import Breaker, ValkeyUnavailable, short_client
from storage.settings import CacheSettings, RedisSettings

PATIENCE_SECONDS = 0.25
"""A model is built from its rows in less time than that."""
# Bytes that a value costs beside its content, about: its name and its entries in the cache.
_OVERHEAD = 300


class ModelCache:
    """Bytes by name; at most `memory_mib` of them in this process, those longest unused dropped first.

    `counts` are by outcome: found in memory, found in Valkey, missing.
    """

    def __init__(self, redis: RedisSettings, settings: CacheSettings) -> None:
        self._client = short_client(redis)
        self._settings = settings
        room = settings.memory_mib * 1024 * 1024
        self._kept: ByteCache[str, bytes] = ByteCache(room, lambda content: len(content) + _OVERHEAD)
        self.counts: Counter[str] = Counter()
        self.breaker = Breaker(self._client, PATIENCE_SECONDS)

    async def get(self, names: Sequence[str]) -> dict[str, bytes]:
        """Those of some names that are kept."""
        if not self._settings.enabled:
            return {}
        found = {name: self._kept[name] for name in names if name in self._kept}
        lacking = [name for name in names if name not in found]
        shared = await self._from_valkey(lacking) if lacking else {}
        for name, content in shared.items():
            self._kept.keep(name, content)
        self.counts["memory"] += len(found)
        self.counts["valkey"] += len(shared)
        self.counts["missing"] += len(lacking) - len(shared)
        return found | shared

    async def keep(self, contents: Mapping[str, bytes]) -> None:
        """Keep some contents under their names."""
        if not self._settings.enabled:
            return
        for name, content in contents.items():
            self._kept.keep(name, content)
        with contextlib.suppress(ValkeyUnavailable):
            await self.breaker.ask(lambda: self._to_valkey(contents))

    async def _to_valkey(self, contents: Mapping[str, bytes]) -> None:
        # One round trip, and no MULTI: each name stands for itself, so it does not matter which of them are stored.
        async with self._client.pipeline(transaction=False) as together:
            for name, content in contents.items():
                together.set(name, content, ex=self._settings.model_seconds)
            await together.execute()

    async def _from_valkey(self, names: Sequence[str]) -> dict[str, bytes]:
        try:
            values = cast(list[bytes | None], await self.breaker.ask(lambda: self._client.mget(names)))
        except ValkeyUnavailable:
            return {}
        return {name: value for name, value in zip(names, values, strict=True) if value is not None}

    async def close(self) -> None:
        """Give the connections back."""
        await self.breaker.close()
