"""Progress ticks of running jobs, through Valkey. Losing any of them loses no fact."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, cast
from uuid import UUID

import msgspec
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

# The client annotates its methods partly, so it is held as Any.
from storage.records.jobs import Progress
from storage.settings import RedisSettings


class ProgressWriter:
    """Publishes ticks from a flow. A store that does not answer is counted, never waited for."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client: Any = cast(Any, Redis).from_url(
            settings.url.get_secret_value(), socket_timeout=0.5, socket_connect_timeout=0.5
        )
        self.lost = 0

    def publish(self, job_id: UUID, progress: Progress) -> None:
        """Tell whoever listens how far the job is."""
        try:
            self._client.publish(_channel(job_id), msgspec.json.encode(progress))
        except RedisError:
            self.lost += 1

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


class ProgressReader:
    """Follows ticks in the API."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client: Any = cast(Any, AsyncRedis).from_url(
            settings.url.get_secret_value(), socket_timeout=5, socket_connect_timeout=1
        )

    async def follow(self, job_id: UUID, *, wait_seconds: float) -> AsyncGenerator[Progress | None]:
        """Ticks as they come, and None after every `wait_seconds` without one. Ends when Valkey does not answer."""
        try:
            async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
                await subscription.subscribe(_channel(job_id))
                while True:
                    message = await subscription.get_message(timeout=wait_seconds)
                    yield None if message is None else msgspec.json.decode(message["data"], type=Progress)
        except RedisError:
            return

    async def alive(self) -> bool:
        """Whether Valkey answers."""
        try:
            return bool(await self._client.ping())
        except RedisError:
            return False

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _channel(job_id: UUID) -> str:
    return f"progress:{job_id}"
