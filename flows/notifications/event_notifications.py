"""Which events are notified of, and to whom. Statements alone: the relay runs them as an event's effect."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias, TypeVar, assert_never
from uuid import UUID

from storage.errors import NotFound
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs
from storage.postgres.notifications import notifications
from storage.postgres.notifications.notifications import CommentedOn
from storage.postgres.social import social
from storage.records.accounts.accounts import Account
from storage.records.events import events
from storage.records.notifications.notifications import (
    EXCERPT,
    Commented,
    Content,
    JobFailedNotice,
    JobFinished,
    Mentioned,
    NewFollower,
    SampleReadyNotice,
)
from storage.records.social.social import Comment

Notice = TypeVar("Notice", Commented, Mentioned)
NotifiedEvent: TypeAlias = (
    events.JobSucceeded
    | events.JobFailed
    | events.SampleReady
    | events.ModelsChanged
    | events.FollowAdded
    | events.CommentWritten
    | events.CommentEdited
)
"""Events that somebody is notified of."""


def expand(event: NotifiedEvent) -> Script[list[int]]:
    """Add the notifications of an event; returns their ids. The same event again adds nothing."""
    match event:
        case events.JobSucceeded() | events.JobFailed() | events.SampleReady():
            return (yield from _of_job(event))
        case events.ModelsChanged(lane=events.Lane.COUNTS):
            return (yield from notifications.add_milestones(event.model_ids))
        case events.ModelsChanged():
            return (yield from notifications.add_published(event.model_ids))
        case events.FollowAdded():
            return (yield from _followed(event))
        case events.CommentWritten() | events.CommentEdited():
            return (yield from _commented(event))
        case _:
            assert_never(event)


def _of_job(event: events.JobSucceeded | events.JobFailed | events.SampleReady) -> Script[list[int]]:
    # Read as it is now; the event only says what happened.
    job = yield from jobs.get(event.job_id)
    owner = yield from accounts.account(job.account_id)
    content: Content
    match event:
        # Before the bare case: of a training, which has a version, the notification names the model.
        case events.JobSucceeded(model_version_id=int(version_id)):
            version = yield from catalog.version_by_id(version_id)
            model = yield from catalog.model_by_id(version.model_id)
            content = JobFinished(job_id=job.id, job_kind=job.kind, model_id=model.id, model_name=model.name)
        case events.JobSucceeded():
            content = JobFinished(job_id=job.id, job_kind=job.kind)
        case events.JobFailed():
            content = JobFailedNotice(job_id=job.id, job_kind=job.kind, reason=event.reason)
        case events.SampleReady():
            content = SampleReadyNotice(job_id=job.id, name=event.name, step=event.step)
        case _:
            assert_never(event)
    part = f":{event.name}" if isinstance(event, events.SampleReady) else ""
    return (yield from notifications.add(f"{content.type}:{job.id}{part}", content, [owner.number]))


def _followed(event: events.FollowAdded) -> Script[list[int]]:
    """Who follows again is not notified of again."""
    follower = yield from accounts.account(event.follower_id)
    followed = yield from accounts.account(event.followed_id)
    content = NewFollower(by=follower.name)
    return (
        yield from notifications.add(f"new_follower:{follower.number}:{followed.number}", content, [followed.number])
    )


def _commented(event: events.CommentWritten | events.CommentEdited) -> Script[list[int]]:
    """Whom it mentions is notified of that alone; else whose the thing is, and who wrote the comment that it replies
    to."""
    comment = yield from social.comment_by_id(event.comment_id)
    if comment.content is None:
        return []  # it was deleted meanwhile, or its author is banned
    try:
        on = yield from notifications.commented_on(comment.entity, comment.entity_id)
    except NotFound:
        return []
    added: list[int] = []
    for account in (yield from _others(event.mentioned, comment)):
        # One for each account, under a key of its own: an edit that mentions one more then notifies that one alone.
        added += yield from notifications.add(
            f"mention:{comment.id}:{account.number}", _notice(Mentioned, comment, on), [account.number]
        )
    # An edit notifies nobody but those whom it mentions: the owner was notified when the comment came.
    if isinstance(event, events.CommentWritten):
        concerned = {on.account_id}
        if event.parent_id is not None:
            concerned.add((yield from social.comment_by_id(event.parent_id)).account_id)
        readers = yield from _others(concerned - set(event.mentioned), comment)
        if readers:
            numbers = [account.number for account in readers]
            added += yield from notifications.add(f"comment:{comment.id}", _notice(Commented, comment, on), numbers)
    return added


def _others(ids: Iterable[UUID], comment: Comment) -> Script[list[Account]]:
    """These accounts, without the comment's own author."""
    found = yield from accounts.accounts(set(ids) - {comment.account_id})
    return list(found.values())


def _notice(kind: type[Notice], comment: Comment, on: CommentedOn) -> Notice:
    # Kept with the notification, because the comment may be edited or gone when its reader looks.
    excerpt = (comment.content or "")[:EXCERPT]
    return kind(comment_id=comment.id, by=comment.name, on=on.name, model_id=on.model_id, excerpt=excerpt)
