"""Progress ticks of running jobs, through Valkey. Losing any of them loses no fact."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, cast
from uuid import UUID

import msgspec
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import RedisError

# The client annotates its methods partly, so it is held as Any.
from storage.records.jobs.jobs import Progress
from storage.settings import RedisSettings

AGAIN_SECONDS = 3.0
LISTEN_SECONDS = 1.0
PREVIEW_SECONDS = 60


class ProgressWriter:
    """Publishes ticks from a flow. A store that does not respond is counted, never waited for."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client: Any = cast(Any, Redis).from_url(
            settings.url.get_secret_value(), socket_timeout=0.5, socket_connect_timeout=0.5
        )
        self.lost = 0

    def publish(self, job_id: UUID, progress: Progress) -> None:
        """Publish how far the job is."""
        try:
            self._client.publish(_channel(job_id), msgspec.json.encode(progress))
        # A tick is worth less than a moment of training: it is not sent again.
        except RedisError:
            self.lost += 1

    def show(self, job_id: UUID, jpeg: bytes) -> None:
        """Keep what a job draws, as it looks so far, for a minute."""
        try:
            self._client.set(_preview(job_id), jpeg, ex=PREVIEW_SECONDS)
        except RedisError:
            self.lost += 1

    def close(self) -> None:
        """Give the connection back."""
        self._client.close()


class ProgressReader:
    """Follows ticks in the API: one connection for all who follow, since there are few ticks and many followers."""

    def __init__(self, settings: RedisSettings) -> None:
        self._client: Any = cast(Any, AsyncRedis).from_url(
            settings.url.get_secret_value(), socket_timeout=5, socket_connect_timeout=1
        )
        self._followers: defaultdict[str, set[Callable[[Progress], None]]] = defaultdict(set)

    @contextmanager
    def followed_by(self, job_id: UUID, follower: Callable[[Progress], None]) -> Generator[None]:
        """Call `follower` with every tick of a job, as long as somebody listens."""
        channel = _channel(job_id)
        self._followers[channel].add(follower)
        try:
            yield
        finally:
            self._followers[channel].discard(follower)
            if not self._followers[channel]:
                del self._followers[channel]

    async def listen(self) -> None:
        """Hand ticks to their followers until cancelled; connect again when Valkey does not respond."""
        while True:
            with suppress(RedisError, OSError):
                await self._listen_once()
            await asyncio.sleep(AGAIN_SECONDS)

    async def _listen_once(self) -> None:
        async with self._client.pubsub(ignore_subscribe_messages=True) as subscription:
            # All jobs by one pattern, so that who begins or ends to follow one sends nothing to Valkey.
            await subscription.psubscribe(_channel("*"))
            while True:
                message = await subscription.get_message(timeout=LISTEN_SECONDS)
                followers = message and self._followers.get(message["channel"].decode())
                if followers:
                    tick = msgspec.json.decode(message["data"], type=Progress)
                    # A copy, since a follower that ends takes itself out of the set.
                    for follower in tuple(followers):
                        follower(tick)

    async def preview(self, job_id: UUID) -> bytes | None:
        """The newest look at what a job draws, a JPEG. None when there is none, or Valkey does not respond."""
        try:
            return await self._client.get(_preview(job_id))
        except RedisError:
            return None

    async def alive(self) -> bool:
        """Whether Valkey responds."""
        try:
            return bool(await self._client.ping())
        except RedisError:
            return False

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()


def _channel(job_id: UUID | str) -> str:
    return f"progress:{job_id}"


def _preview(job_id: UUID) -> str:
    return f"preview:{job_id}"
