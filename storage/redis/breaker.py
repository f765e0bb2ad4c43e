"""What short questions to Valkey have in common: a bounded wait, and no second one while it is unavailable.

A slow Valkey, or a process that is too busy to read its response, is not an absent Valkey: whoever counts requests must
not stop counting for that. So the wait is long compared with a response, and only time in which this process listened
counts (`listened`): an event loop that is held up for a second has not waited for a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from storage.settings import RedisSettings

T = TypeVar("T")
LOG = logging.getLogger("darkroom.valkey")

PROBE_SECONDS = 0.5
_SLICES = 20
# The client's own time-outs, which only end what a Breaker has given up long before.
_BACKSTOP_SECONDS = 30.0


class ValkeyUnavailable(Exception):
    """Valkey did not respond, or was not asked because it did not respond a moment ago."""


async def listened(question: Coroutine[Any, Any, T], seconds: float) -> T:
    """The response to a question. Raises TimeoutError when none came in `seconds` in which this process listened.

    The wait is made of slices, each of which ends after the event loop has read what has come: a loop that is held up
    uses up one slice, however long that takes.
    """
    asked = asyncio.ensure_future(question)
    try:
        for _ in range(_SLICES):
            # Not wait_for, which would cancel the question with the first slice that ends.
            done, _ = await asyncio.wait({asked}, timeout=seconds / _SLICES)
            if done:
                return asked.result()
    finally:
        if not asked.done():
            asked.cancel()
            asked.add_done_callback(_retrieve)  # not awaited: the client swallows that while it connects
    raise TimeoutError


def _retrieve(asked: asyncio.Future[Any]) -> None:
    if not asked.cancelled():
        asked.exception()


class Breaker:
    """Closed while Valkey responds. A question without a response in `patience_seconds` opens it: from then on nobody
    asks or waits, but for one probe in the background, whose response closes it.

    `failures` counts the questions that got no response, also those not asked.
    """

    def __init__(self, client: Any, patience_seconds: float) -> None:
        self._client, self._patience = client, patience_seconds
        self._probing: asyncio.Task[None] | None = None
        self.failures = 0

    @property
    def open(self) -> bool:
        """Whether asking is not worth the wait."""
        return self._probing is not None

    async def ask(self, question: Callable[[], Coroutine[Any, Any, T]], count: int = 1) -> T:
        """The response to a question that stands for `count` of them. Raises ValkeyUnavailable."""
        if self.open:
            self.failures += count
            raise ValkeyUnavailable
        try:
            return await listened(question(), self._patience)
        except (RedisError, OSError, TimeoutError) as error:
            self.failures += count
            # Many questions may fail together; one of them begins the probe.
            if self._probing is None:
                LOG.warning("Valkey does not respond (%s): nobody asks it until it does", type(error).__name__)
                self._probing = asyncio.create_task(self._probe())
            raise ValkeyUnavailable from error

    async def _probe(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            with contextlib.suppress(RedisError, OSError, TimeoutError):
                await listened(self._client.ping(), self._patience)
                break
        LOG.info("Valkey responds again")
        self._probing = None

    async def close(self) -> None:
        """End the probe, and release the client's connections."""
        if self._probing is not None:
            self._probing.cancel()
        await self._client.aclose()


def short_client(settings: RedisSettings) -> Any:
    """A client for questions through a Breaker, which bounds their waits. A connection that was lost, as after a
    restart, is made again once. (Held as Any: its types are partial.)"""
    return cast(Any, Redis).from_url(
        settings.url.get_secret_value(),
        socket_timeout=_BACKSTOP_SECONDS,
        socket_connect_timeout=_BACKSTOP_SECONDS,
        retry=Retry(NoBackoff(), 1),
    )
