"""A workflow on its way in: read, its pictures taken, priced or committed, and waited for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from litestar import Request
from litestar.datastructures import State

from platform_api.access.guards import Caller
from platform_api.cache.responses import IGNORED
from platform_api.http.headers import request_id
from platform_api.http.idempotency import checked_key, fresh_seed
from platform_api.http.links import addresses
from platform_api.jobs.jobs import check_room, has_submitted
from platform_api.orchestration import sent_pictures
from platform_api.orchestration.blob_links import addressing
from platform_api.orchestration.waiting import ended
from storage.postgres.connection import Script
from storage.postgres.orchestration import workflow_orders, workflow_pages
from storage.records.generation.resolved_workflows import ResolvedWorkflow
from storage.records.jobs.jobs import Job
from storage.records.orchestration.documents import WorkflowDocument
from storage.records.orchestration.rendering import CallerNotes, document_of, priced_document
from storage.records.orchestration.templates import TemplateRead
from storage.stores import AsyncStores


async def priced(read: TemplateRead, stores: AsyncStores, caller: Caller, state: State) -> WorkflowDocument:
    """What a workflow would cost and draw. Raises as `submitted`."""
    async with sent_pictures.pictures_of(read, stores, caller, state, to_keep=False) as taken:
        resolved, written = await _price(read, taken, stores, caller)
    return priced_document(resolved, written, datetime.now(UTC))


async def submitted(
    request: Request[Any, Any, Any], read: TemplateRead, state: State, *, key: str | None, wait: float
) -> Job:
    """The committed workflow, when it has ended or `wait` seconds are over.

    Raises InvalidRequest by field, Gone, IdempotencyKeyReused, TooManyRequests, QuotaExceeded, FreeSpaceLow.
    """
    stores: AsyncStores = state.stores
    caller: Caller = request.state.caller
    checked = checked_key(key)
    repeats = partial(_repeats, caller, read, checked)
    await check_room(stores, repeats)
    seed, identity = fresh_seed(), request_id(request.scope)

    def script() -> Script[tuple[Job, bool]]:
        return workflow_orders.submit(
            read,
            taken.by_place,
            caller.account_id,
            stores.settings,
            seed=seed,
            idempotency_key=checked,
            request_id=identity,
        )

    async with sent_pictures.pictures_of(read, stores, caller, state) as taken:
        # Before they are kept, so that of a request that is refused nothing is. What a repeat names may be gone since.
        if taken.unkept and not await stores.database.run(repeats):
            await _price(read, taken, stores, caller)
        await taken.keep()
        job, _ = await stores.database.run(script)
    return await ended(stores, state, caller.account_id, job, wait)


async def _price(
    read: TemplateRead, taken: sent_pictures.Intake, stores: AsyncStores, caller: Caller
) -> tuple[ResolvedWorkflow, CallerNotes]:
    def script() -> Script[tuple[ResolvedWorkflow, CallerNotes]]:
        return workflow_orders.price(
            read, taken.by_place, caller.account_id, stores.settings, seed=fresh_seed(), unkept=taken.unkept
        )

    return await stores.database.run(script)


def _repeats(caller: Caller, read: TemplateRead, key: str | None) -> Script[bool]:
    """Whether the workflow was submitted already, under the caller's own name or the key."""
    name = read.template.external_id
    if name is not None and (yield from workflow_pages.is_named(caller.account_id, name)):
        return True
    return (yield from has_submitted(caller.account_id, key))


async def shown(request: Request[Any, Any, Any], stores: AsyncStores, caller: Caller, job: Job) -> WorkflowDocument:
    """The document of a workflow as it stands now."""
    now, where = datetime.now(UTC), addresses(request, stores.settings.api)
    standing = await stores.database.run(lambda: workflow_pages.standing(job, now))
    return document_of(standing, addressing(where, caller.account_id))


def ignored_header(names: Sequence[str]) -> Mapping[str, str]:
    """The header that names what was sent and says nothing here."""
    return {IGNORED: ", ".join(names[:50])} if names else {}
