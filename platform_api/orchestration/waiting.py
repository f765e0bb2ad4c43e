"""Requests that wait for a workflow to end: woken by what happens to it, never longer than they may."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

from litestar.datastructures import State

from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.orchestration import workflow_pages
from storage.records.jobs.jobs import TERMINAL, Job
from storage.stores import AsyncStores

LOOK_SECONDS = 2.0
"""How long after its last look a request looks unasked: announcements may be lost."""


def checked_wait(wait: float, longest: float) -> float:
    """Raises InvalidRequest for more seconds than a request may wait."""
    if not 0 <= wait <= longest:
        raise InvalidRequest({"wait": f"must be 0 to {longest:g} seconds; then ask again"})
    return wait


async def ended(stores: AsyncStores, state: State, account_id: UUID, job: Job, seconds: float) -> Job:
    """The workflow when it has ended, or as it stands when so many seconds are over or the server stops.

    Raises TooManyRequests when the account waits for, or follows, too many at once; NotFound when it was deleted.
    """
    if job.state in TERMINAL or not seconds:
        return job
    clock, job_id = asyncio.get_running_loop(), job.id
    until = clock.time() + seconds

    def again() -> Script[Job]:
        return workflow_pages.find(job_id, account_id)

    # An open connection, as an event stream is: the same limit holds for both.
    async with state.streams.hold(account_id):
        with state.announcements.waiting_for(f"job:{job_id}") as waiter:
            while job.state not in TERMINAL and (left := until - clock.time()) > 0 and not waiter.stopping.begun:
                waiter.woken.clear()
                job = await asyncio.shield(stores.database.run(again))
                if job.state not in TERMINAL:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(waiter.woken.wait(), min(LOOK_SECONDS, left))
    return job
