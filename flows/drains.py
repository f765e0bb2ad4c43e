"""Flows that drain a queue: one run empties it, waits a little for more, and ends. A flow run costs seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
from psycopg.rows import DictRow

from storage.stores import Stores

IDLE_SECONDS = 30.0
"""A drain that found work waits this long for more before it ends."""


def drain_until_idle(
    stores: Stores,
    channel: str,
    drain: Callable[[], int],
    next_due: Callable[[], float | None],
    idle_seconds: float,
) -> int:
    """Drain again whenever somebody notifies `channel` or something falls due, until nobody has for `idle_seconds`.

    `drain` empties the queue and gives how much it did; `next_due` says in how many seconds more is due, if known.
    """
    total = 0
    with stores.database.connect() as listener:
        listener.execute(f"listen {channel}".encode())
        deadline = time.monotonic() + idle_seconds
        while True:
            done = drain()
            total += done
            now = time.monotonic()
            if done:
                deadline = now + idle_seconds
            elif total == 0 or now >= deadline:
                return total
            _wait(listener, next_due(), deadline - now)


def _wait(listener: psycopg.Connection[DictRow], due: float | None, seconds: float) -> None:
    limit = seconds if due is None else max(0.05, min(seconds, due))
    for _ in listener.notifies(timeout=limit, stop_after=1):
        return
