"""Which events are told, in which words' terms, to whom. Pure statements: the relay runs them as an event's effect."""

from __future__ import annotations

from typing import TypeAlias, assert_never

from storage.postgres import access, catalog, jobs, notifications
from storage.postgres.connection import Script
from storage.records import events
from storage.records.notifications import Content, JobFailed, JobFinished, SampleReady, VersionPublished

ToldEvent: TypeAlias = events.JobSucceeded | events.JobFailed | events.SampleReady | events.ModelVersionPublished
"""Events that somebody is told of."""


def expand(event: ToldEvent) -> Script[list[int]]:
    """Add the notification of an event; gives its id. The same event again adds nothing."""
    match event:
        case events.ModelVersionPublished():
            return (yield from _published(event))
        case events.JobSucceeded() | events.JobFailed() | events.SampleReady():
            return (yield from _of_job(event))
        case _:
            assert_never(event)


def _of_job(event: events.JobSucceeded | events.JobFailed | events.SampleReady) -> Script[list[int]]:
    job = yield from jobs.get(event.job_id)
    owner = yield from access.account(job.account_id)
    content: Content
    match event:
        case events.JobSucceeded(model_version_id=int(version_id)):
            version = yield from catalog.version_by_id(version_id)
            model = yield from catalog.model_by_id(version.model_id)
            content = JobFinished(job_id=job.id, job_kind=job.kind, model_id=model.id, model_name=model.name)
        case events.JobSucceeded():
            content = JobFinished(job_id=job.id, job_kind=job.kind)
        case events.JobFailed():
            content = JobFailed(job_id=job.id, job_kind=job.kind, reason=event.reason)
        case events.SampleReady():
            content = SampleReady(job_id=job.id, name=event.name, step=event.step)
        case _:
            assert_never(event)
    part = f":{event.name}" if isinstance(event, events.SampleReady) else ""
    return (yield from notifications.add(f"{content.type}:{job.id}{part}", content, [owner.number]))


def _published(event: events.ModelVersionPublished) -> Script[list[int]]:
    model = yield from catalog.model_by_id(event.model_id)
    version = yield from catalog.version_by_id(event.model_version_id)
    owner = yield from access.account(model.account_id)
    content = VersionPublished(
        model_id=model.id,
        model_name=model.name,
        model_version_id=version.id,
        version_name=version.name,
        by=owner.name,
    )
    return (yield from notifications.add(f"{content.type}:{version.id}", content, [owner.number]))
