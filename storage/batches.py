"""Questions that come while one is under way go together as the next one.

A request asks Valkey whether it may, and Postgres what has changed. Under load many ask at once, and a round trip for
each would cost more than the work itself: together they cost one. Nobody waits for company: the first goes alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Item = TypeVar("Item")
Value = TypeVar("Value")


class Batches(Generic[Item, Value]):
    """Asks for many items at once. `fetch_many` is given at most `maximum` items and returns a value for each, in
    order.

    A batch begins after everything in it has come, so what it reads is never older than the question.
    """

    def __init__(self, fetch_many: Callable[[list[Item]], Awaitable[Sequence[Value]]], *, maximum: int = 100) -> None:
        self._fetch_many, self._maximum = fetch_many, maximum
        self._waiting: list[tuple[Item, asyncio.Future[Value]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, item: Item) -> Value:
        """The value of one item. Raises what its batch raised."""
        future: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._running is None:
            # Kept in an attribute: the event loop itself holds only a weak reference to a task.
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            # Taken out before the await: who asks while the batch is under way belongs to the next one, which begins
            # later.
            batch, self._waiting = self._waiting[: self._maximum], self._waiting[self._maximum :]
            try:
                values = await self._fetch_many([item for item, _ in batch])
            except Exception as error:  # noqa: BLE001 - whoever waits gets it
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
            else:
                for (_, future), value in zip(batch, values, strict=True):
                    if not future.done():  # its request may have been given up
                        future.set_result(value)
        # No await lies between the last look at `_waiting` and this line, so nobody who asks in between is forgotten.
        self._running = None
