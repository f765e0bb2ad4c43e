"""The routes that training jobs and generations share."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar, Protocol
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, HeaderParameter

from platform_api.access.dependencies import AppStores, RequestCaller
from platform_api.access.guards import Caller, Requires
from platform_api.http import downloads
from platform_api.http.headers import EVENT_STREAM, request_id
from platform_api.http.idempotency import checked_key, fresh_seed
from platform_api.http.problems import can_return
from platform_api.jobs.job_views import (
    JobFiles,
    JobFileView,
    JobSummary,
    SubmittedJob,
    file_view,
    job_of_kind,
    submitted,
    summary,
)
from platform_api.streams import job_events
from storage.errors import FreeSpaceLow
from storage.postgres.connection import Script
from storage.postgres.jobs import job_files, jobs
from storage.records.accounts.accounts import Scope
from storage.records.jobs.jobs import Job, JobFile, JobFileRole, JobKind
from storage.settings import Settings
from storage.stores import AsyncStores


class Submission(Protocol):
    """What submits the job of a request: `storage.postgres.jobs.submissions` has one for each kind."""

    def __call__(
        self,
        account_id: UUID,
        settings: Settings,
        *,
        seed: int,
        idempotency_key: str | None,
        request_id: str | None,
    ) -> Script[tuple[Job, bool]]:
        """Commit the job; returns it and whether it is new."""
        ...


async def submit_job(
    request: Request[Any, Any, Any],
    stores: AsyncStores,
    caller: Caller,
    submission: Submission,
    idempotency_key: str | None,
    repeats: Callable[[], Script[bool]] | None = None,
) -> Response[SubmittedJob]:
    """Commit the job that a request asks for and say where to follow it. `repeats`: whether an earlier request is the
    same; without it, whether one came with the same key. Raises InvalidRequest, FreeSpaceLow.
    """
    key = checked_key(idempotency_key)
    script = partial(
        submission,
        caller.account_id,
        stores.settings,
        seed=fresh_seed(),
        idempotency_key=key,
        request_id=request_id(request.scope),
    )
    return await accept(stores, script, repeats or partial(has_submitted, caller.account_id, key))


def has_submitted(account_id: UUID, key: str | None) -> Script[bool]:
    """Whether the account has submitted a job with this key."""
    return False if key is None else (yield from jobs.is_submitted(account_id, key))


async def accept(
    stores: AsyncStores,
    script: Callable[[], Script[tuple[Job, bool]]],
    repeats: Callable[[], Script[bool]],
) -> Response[SubmittedJob]:
    """Commit the job that `script` submits. Raises as `check_room`."""
    await check_room(stores, repeats)
    job, _ = await stores.database.run(script)
    return submitted(job)


async def check_room(stores: AsyncStores, repeats: Callable[[], Script[bool]]) -> None:
    """Raises FreeSpaceLow, but not where the request `repeats` an earlier one: there is a job already, and its caller
    gets it."""
    try:
        await stores.free_space.check()
    # Asked only now: the question costs a statement, and a disk is rarely full.
    except FreeSpaceLow:
        if not await stores.database.run(repeats):
            raise


class JobRoutes(Controller):
    """What training jobs and generations share. A subclass names its kind, and has the routes that submit, list, show
    and retry."""

    kind: ClassVar[JobKind]

    @post(
        "/{job_id:uuid}/cancel",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 409),
        status_code=202,
        summary="Ask a job to stop",
    )
    async def cancel(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> JobSummary:
        """A submitted job is cancelled at once, a running one at its next step; what it made is kept."""

        def script() -> Script[Job]:
            yield from job_of_kind(job_id, caller.account_id, self.kind)
            return (yield from jobs.cancel(job_id, caller.account_id))

        return summary(await stores.database.run(script))

    @get(
        "/{job_id:uuid}/events",
        guards=[Requires(Scope.JOBS_READ)],
        responses={
            200: ResponseSpec(str, generate_examples=False, description="The stream", media_type=EVENT_STREAM),
            204: ResponseSpec(None, description="The job has ended and every event was sent"),
            **can_return(401, 403, 404, 422, 429),
        },
        media_type=EVENT_STREAM,
        summary="Follow a job",
    )
    async def follow(
        self,
        stores: AppStores,
        caller: RequestCaller,
        state: State,
        job_id: FromPath[UUID],
        last_event_id: Annotated[
            str | None, HeaderParameter(name="Last-Event-ID", description="Only events after this one.", required=False)
        ] = None,
    ) -> Response[Any]:
        """Server-sent events: state changes with ids, replayed after Last-Event-ID; `progress` ticks without.

        The stream ends with the job; with `stream.ended` when the key does not work any more.
        """
        after, allowed = job_events.read_last_event_id(last_event_id), state.stream_keys.allowing(caller.key.id)
        job = await stores.database.run(job_of_kind(job_id, caller.account_id, self.kind))
        return await job_events.respond(stores, state.announcements, state.streams, job, after, allowed)

    @get(
        "/{job_id:uuid}/samples",
        guards=[Requires(Scope.JOBS_READ)],
        responses=can_return(401, 403, 404),
        summary="Sample images so far",
    )
    async def samples(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> JobFiles:
        """The sample images that the job has made, oldest first."""
        found = await self._files(stores, caller, job_id)
        return JobFiles(items=[file for file in found if file.role in (JobFileRole.SAMPLE, JobFileRole.GRID)])

    @get(
        "/{job_id:uuid}/files",
        guards=[Requires(Scope.JOBS_READ)],
        responses=can_return(401, 403, 404),
        summary="Files of a job",
    )
    async def files(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> JobFiles:
        """Everything the job has made, oldest first."""
        return JobFiles(items=await self._files(stores, caller, job_id))

    @delete(
        "/{job_id:uuid}/files",
        guards=[Requires(Scope.JOBS_WRITE)],
        responses=can_return(401, 403, 404, 409),
        summary="Delete what a job made",
    )
    async def delete_files(self, stores: AppStores, caller: RequestCaller, job_id: FromPath[UUID]) -> None:
        """Its files and checkpoints count for the account no more. The job stays in lists, and what was published of it
        stays; a retry begins at its first step. While the job has not ended: 409."""

        def script() -> Script[None]:
            yield from job_of_kind(job_id, caller.account_id, self.kind)
            yield from jobs.delete_files(job_id, caller.account_id)

        await stores.database.run(script)

    @downloads.read_route(
        "/{job_id:uuid}/files/{name:path}", guards=[Requires(Scope.JOBS_READ)], summary="Bytes of a job's file"
    )
    async def file(
        self,
        request: Request[Any, Any, Any],
        stores: AppStores,
        caller: RequestCaller,
        job_id: FromPath[UUID],
        name: FromPath[PurePosixPath],
    ) -> Response[Any]:
        """The bytes of one file, whole or a range."""

        def script() -> Script[JobFile]:
            yield from job_of_kind(job_id, caller.account_id, self.kind)
            return (yield from job_files.file(job_id, downloads.plain_path(name)))

        found = await stores.database.run(script)
        wanted = downloads.Download(found.sha256, found.size, found.name, found.media_type)
        return await downloads.respond(request, stores.blobs, wanted)

    async def _files(self, stores: AsyncStores, caller: Caller, job_id: UUID) -> list[JobFileView]:
        def script() -> Script[list[JobFile]]:
            yield from job_of_kind(job_id, caller.account_id, self.kind)
            return (yield from job_files.files(job_id))

        found = await stores.database.run(script)
        return [file_view(file, self.kind, stores.settings) for file in found]
