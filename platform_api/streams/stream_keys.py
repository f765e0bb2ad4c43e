"""Event streams end with the key that opened them: revoked, expired, its account banned.

One statement every few seconds asks for the keys of all streams of a process. While Postgres is unavailable the streams
go on, and are asked about as soon as it responds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial

import msgspec

from storage.errors import DarkroomError
from storage.postgres.accounts import accounts
from storage.postgres.connection import AsyncDatabase

LOG = logging.getLogger("darkroom.api")
CHECK_SECONDS = 5.0
"""A stream ends at the latest 10 s after its key: so long a pause, and as much for Postgres to respond."""
ENDED = b"event: stream.ended\ndata: %s\n\n"


class StreamKeys:
    """The keys whose streams this process keeps open."""

    def __init__(self, database: AsyncDatabase) -> None:
        self._database = database
        self._open: defaultdict[str, set[asyncio.Future[str]]] = defaultdict(set)

    async def keep_checking(self) -> None:
        """Check every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                await self.check()
            except DarkroomError as error:
                LOG.warning("event streams: their keys are not checked: %s", error)
            except Exception:
                LOG.exception("the keys of event streams could not be checked")

    async def check(self) -> None:
        """End the streams whose keys do not work any more. Raises StoreUnavailable."""
        if not self._open:
            return
        async with asyncio.timeout(CHECK_SECONDS):
            lost = await self._database.run(accounts.not_working(list(self._open)))
        for key_id, reason in lost.items():
            for ending in self._open.get(key_id, ()):
                # A future takes a result once; the stream may be about to end already.
                if not ending.done():
                    ending.set_result(reason)

    def allowing(self, key_id: str) -> Callable[[AsyncGenerator[bytes]], AsyncGenerator[bytes]]:
        """What ends a stream with the key that opened it."""
        return partial(self._while_it_works, key_id)

    async def _while_it_works(self, key_id: str, content: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        """A stream's bytes for as long as its key works; then the event `stream.ended`, which says why."""
        with self._following(key_id) as ending:
            following: asyncio.Future[bytes] | None = None
            try:
                while True:
                    following = asyncio.ensure_future(anext(content))
                    await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
                    if ending.done():
                        yield ENDED % msgspec.json.encode({"reason": ending.result()})
                        return
                    try:
                        piece = following.result()
                    except StopAsyncIteration:
                        return
                    yield piece
            finally:
                if following is not None and not following.done():
                    # Waited for before the generator is closed: one that runs cannot be.
                    following.cancel()
                    await asyncio.wait({following})
                await content.aclose()

    @contextlib.contextmanager
    def _following(self, key_id: str) -> Generator[asyncio.Future[str]]:
        # A future beside the stream, which is seen while the stream itself sleeps and has nothing to say.
        ending: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._open[key_id].add(ending)
        try:
            yield ending
        finally:
            self._open[key_id].discard(ending)
            if not self._open[key_id]:
                del self._open[key_id]
