"""Flows that drain a queue: one run empties it, waits a little for more, and ends. A flow run costs seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

import psycopg
from prefect import get_run_logger
from prefect.context import FlowRunContext
from psycopg.rows import DictRow

from storage.postgres import pauses, search_queue
from storage.settings import load_settings
from storage.stores import Stores, open_stores

IDLE_SECONDS = 30.0
"""A drain that found work waits this long for more before it ends."""


@contextmanager
def sole_drain(flow: str) -> Generator[Stores | None]:
    """The stores, for the one run of a flow that drains; None while another one does.

    The run has begun, so the relay gives the next one another key.
    """
    with open_stores(load_settings()) as stores, stores.database.session_lock(flow) as held:
        if held:
            stores.database.run(search_queue.next_wakeup(flow))
        else:
            _log().info("another run drains what waits for %s", flow)
        yield stores if held else None


def drain_until_idle(
    stores: Stores,
    flow: str,
    channel: str,
    drain: Callable[[], int],
    next_due: Callable[[], float | None],
    idle_seconds: float,
) -> int:
    """Drain again whenever somebody notifies `channel` or something falls due, until nobody has for `idle_seconds`.

    The run of a flow that is paused meanwhile ends with what it has taken.
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
            if stores.database.run(pauses.is_paused(flow)):
                return total
            _wait(listener, next_due(), deadline - now)


def _wait(listener: psycopg.Connection[DictRow], due: float | None, seconds: float) -> None:
    limit = seconds if due is None else max(0.05, min(seconds, due))
    for _ in listener.notifies(timeout=limit, stop_after=1):
        return


def _log() -> logging.Logger | logging.LoggerAdapter[logging.Logger]:
    return get_run_logger() if FlowRunContext.get() else logging.getLogger("darkroom.drains")
