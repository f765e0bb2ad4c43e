"""Room for work that may be done at once: each kind of work has its own, and who finds none waits for a bounded time.

What blocks must not share its threads with anything else. Slow images once held every thread that downloads needed;
asyncio's default executor carries what is short and rare alone: clean-up, names of hosts, and a look at the free space
once a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from storage.errors import PoolBusy

P = ParamSpec("P")
T = TypeVar("T")


class Room:
    """Places for one kind of work. Who finds none free waits, in order, for `wait_seconds` at most.

    `waiting` is how many do, `busy` how many places are taken, `refused` how many gave up waiting.
    """

    def __init__(self, name: str, places: int, wait_seconds: float) -> None:
        self.name, self.places, self._wait_seconds = name, places, wait_seconds
        self._free = asyncio.Semaphore(places)
        self.busy = self.waiting = self.refused = 0

    async def enter(self, wait_seconds: float | None = None) -> None:
        """Take a place. Raises PoolBusy when none becomes free in time."""
        # True also while others wait, so that who comes now does not overtake them.
        if self._free.locked():
            seconds = self._wait_seconds if wait_seconds is None else wait_seconds
            self.waiting += 1
            try:
                async with asyncio.timeout(seconds):
                    await self._free.acquire()
            except TimeoutError as error:
                self.refused += 1
                raise PoolBusy(self.name, self.places, seconds) from error
            finally:
                self.waiting -= 1
        else:
            await self._free.acquire()  # at once
        self.busy += 1

    def leave(self) -> None:
        """Free a place."""
        self.busy -= 1
        self._free.release()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncGenerator[None]:
        """Hold a place. Raises PoolBusy."""
        await self.enter()
        try:
            yield
        finally:
            self.leave()


class ThreadPool:
    """Named threads for one kind of work. A place is held until its thread is done, also when nobody waits for it."""

    def __init__(self, name: str, threads: int, wait_seconds: float) -> None:
        self.room = Room(name, threads, wait_seconds)
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Do some work in a thread. Raises PoolBusy when none becomes free in time, and what the work raises."""
        await self.room.enter()
        return await self._begun(functools.partial(work, *arguments, **options))

    async def go_on(self, work: Callable[[], T], wait_seconds: float) -> T:
        """The same for the rest of something that has begun, which is not refused as soon. Raises PoolBusy."""
        await self.room.enter(wait_seconds)
        return await self._begun(work)

    async def _begun(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        # With the context of the caller, so that lines that the thread logs have the request's id.
        thread = self._executor.submit(contextvars.copy_context().run, work)

        def leave(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is the room
                loop.call_soon_threadsafe(self.room.leave)

        # Not a `finally` around the await: a caller that is cancelled stops waiting, but its thread is still in use.
        # The callback runs in that thread, and the room belongs to the loop.
        thread.add_done_callback(leave)
        return await asyncio.wrap_future(thread)

    def close(self) -> None:
        """Take no more work. What a thread is doing now ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)


class ThreadPools:
    """The threads of the API, by what they do."""

    def __init__(self, blob_threads: int) -> None:
        self.images = ThreadPool("images", IMAGE_THREADS, wait_seconds=30.0)
        self.blob_reads = ThreadPool("blob-reads", blob_threads, wait_seconds=10.0)
        self.blob_writes = ThreadPool("blob-writes", blob_threads, wait_seconds=10.0)
        self.encoder = ThreadPool("encoder", ENCODER_THREADS, wait_seconds=5.0)

    @property
    def every(self) -> tuple[ThreadPool, ...]:
        """All of them."""
        return self.images, self.blob_reads, self.blob_writes, self.encoder

    def close(self) -> None:
        """Take no more work."""
        for pool in self.every:
            pool.close()


IMAGE_THREADS = 2
"""Images that are made canonical at once, each in a child process of its own."""
ENCODER_THREADS = 2
