"""Social facts: follows, reactions, comments with mentions. Every write commits its event, and is counted, with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from storage.errors import AccessDenied, Gone, InvalidRequest, NotFound, WrongState
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog
from storage.postgres.connection import Query, Script, column, load_statements, many, one
from storage.postgres.events import outbox
from storage.postgres.metrics import activity
from storage.postgres.policy import policy
from storage.records.accounts.accounts import Account, AccountStatus
from storage.records.events.events import (
    CommentDeleted,
    CommentEdited,
    CommentWritten,
    FollowAdded,
    FollowRemoved,
    ReactionAdded,
    ReactionRemoved,
)
from storage.records.metrics.activity import Counted, Metric
from storage.records.policy.checks import check_model, check_seen, check_version
from storage.records.policy.viewers import Viewer
from storage.records.social.social import (
    THUMBS,
    Comment,
    Entity,
    Follow,
    Reaction,
    Subject,
    check_reaction,
    mentioned_names,
)

SQL = load_statements(__file__)

SOURCE = "social"
"""Where the acts that are counted here come from."""


def follow(follower: UUID, number: int) -> Script[Account]:
    """Follow the account of a number, once however often. Raises NotFound, WrongState for one's own number."""
    followed = yield from _account(number)
    if followed.id == follower:
        raise WrongState(f"User {number} is you: nobody follows themselves.")
    ids = {"follower_id": follower, "followed_id": followed.id}
    if (yield from column(SQL["follow"], ids, UUID)):
        yield from outbox.append(FollowAdded(follower_id=follower, followed_id=followed.id))
        yield from activity.count_one(SOURCE, Counted.USER, number, Metric.FOLLOW)
    return followed


def unfollow(follower: UUID, number: int) -> Script[Account]:
    """Follow no more, also somebody who was banned meanwhile. Raises NotFound for a number that nobody has."""
    followed = yield from _account(number, banned_too=True)
    ids = {"follower_id": follower, "followed_id": followed.id}
    if (yield from column(SQL["unfollow"], ids, UUID)):
        yield from outbox.append(FollowRemoved(follower_id=follower, followed_id=followed.id))
        yield from activity.count_one(SOURCE, Counted.USER, number, Metric.FOLLOW, -1)
    return followed


def followed(follower: UUID, *, before: tuple[datetime, int] | None = None, limit: int = 50) -> Query[list[Follow]]:
    """Whom an account follows, newest first, after a place (time and number)."""
    moment, number = before or (None, None)
    parameters = {"follower_id": follower, "before": moment, "number": number, "limit": limit}
    return many(SQL["followed"], parameters, Follow)


def react(
    viewer: Viewer, account_id: UUID, entity: Entity, entity_id: int, reaction: Reaction
) -> Script[list[Reaction]]:
    """React once to what the viewer sees; a thumb replaces the other one. Returns all of the account's reactions there.

    Raises NotFound, also for a reaction that the entity does not take, and Gone.
    """
    check_reaction(entity, reaction)
    yield from _check_seen(viewer, entity, entity_id)
    yield from column(SQL["hold"], {"account_id": account_id}, UUID)
    if reaction in THUMBS:
        # Before the new one: the unique index allows one thumb.
        yield from _take_back(account_id, entity, entity_id, [thumb for thumb in THUMBS if thumb is not reaction])
    parameters = {"entity": entity, "entity_id": entity_id, "account_id": account_id, "reaction": reaction}
    if (yield from column(SQL["react"], parameters, str)):
        event = ReactionAdded(account_id=account_id, entity=entity, entity_id=entity_id, reaction=reaction)
        yield from outbox.append(event)
        yield from activity.count_one(SOURCE, Counted(entity), entity_id, Metric(reaction))
    return (yield from reactions_of(account_id, entity, entity_id))


def take_back(account_id: UUID, entity: Entity, entity_id: int, reaction: Reaction) -> Script[list[Reaction]]:
    """Take a reaction back, also from what is hidden by now. Returns those that the account still has there."""
    check_reaction(entity, reaction)
    yield from column(SQL["hold"], {"account_id": account_id}, UUID)
    yield from _take_back(account_id, entity, entity_id, [reaction])
    return (yield from reactions_of(account_id, entity, entity_id))


def reactions_of(account_id: UUID, entity: Entity, entity_id: int) -> Script[list[Reaction]]:
    """An account's reactions to an entity."""
    parameters = {"entity": entity, "entity_id": entity_id, "account_id": account_id}
    return [Reaction(word) for word in (yield from column(SQL["reactions_of"], parameters, str))]


def comment(
    viewer: Viewer, account_id: UUID, entity: Subject, entity_id: int, content: str, parent_id: int | None = None
) -> Script[Comment]:
    """Write a comment on what the viewer sees, or a reply to one there. Raises NotFound, Gone, InvalidRequest."""
    yield from _check_seen(viewer, Entity(entity), entity_id)
    if parent_id is not None:
        parent = yield from comment_by_id(parent_id)
        if (parent.entity, parent.entity_id) != (entity, entity_id):
            raise InvalidRequest({"parentId": f"comment {parent_id} is about {parent.entity} {parent.entity_id}"})
        if parent.deleted_at is not None:
            raise Gone(f"Comment {parent_id} was deleted: it takes no replies any more.")
    parameters = {
        "account_id": account_id,
        "entity": entity,
        "entity_id": entity_id,
        "parent_id": parent_id,
        "content": content,
    }
    [number] = yield from column(SQL["add_comment"], parameters, int)
    mentioned = yield from _mention(number, account_id, content)
    yield from outbox.append(
        CommentWritten(
            comment_id=number,
            account_id=account_id,
            entity=entity,
            entity_id=entity_id,
            parent_id=parent_id,
            mentioned=tuple(mentioned),
        )
    )
    yield from activity.count_one(SOURCE, Counted(entity), entity_id, Metric.COMMENT)
    return (yield from comment_by_id(number))


def edit_comment(viewer: Viewer, comment_id: int, content: str) -> Script[Comment]:
    """Change the text of one's own comment. The same text again changes nothing.

    Raises NotFound, Gone, AccessDenied for somebody else's.
    """
    found = yield from _own_comment(viewer, comment_id, moderators=False)
    if (yield from column(SQL["edit_comment"], {"id": comment_id, "content": content}, int)):
        # Who is mentioned as before is not notified again; who is no longer mentioned loses the row.
        names = list(mentioned_names(content))
        yield from column(SQL["forget_mentions"], {"comment_id": comment_id, "names": names}, UUID)
        mentioned = yield from _mention(comment_id, found.account_id, content)
        yield from outbox.append(CommentEdited(comment_id=comment_id, mentioned=tuple(mentioned)))
    return (yield from comment_by_id(comment_id))


def delete_comment(viewer: Viewer, comment_id: int) -> Script[None]:
    """Delete one's own comment, or anybody's as a moderator: its text and mentions go, its place stays.

    Raises NotFound, Gone, AccessDenied.
    """
    found = yield from _own_comment(viewer, comment_id, moderators=True)
    if (yield from column(SQL["delete_comment"], {"id": comment_id}, int)):
        yield from column(SQL["forget_mentions"], {"comment_id": comment_id, "names": []}, UUID)
        by_moderator = found.account_id != viewer.account_id
        yield from outbox.append(CommentDeleted(comment_id=comment_id, by_moderator=by_moderator))
        yield from activity.count_one(SOURCE, Counted(found.entity), found.entity_id, Metric.COMMENT, -1)


def comment_by_id(comment_id: int) -> Query[Comment]:
    """A comment, deleted ones too. Reading raises NotFound."""
    return one(SQL["comment"], {"id": comment_id}, Comment, f"No comment {comment_id}.")


def seen_comment(viewer: Viewer, comment_id: int) -> Script[Comment]:
    """A comment on something that the viewer sees, deleted ones too. Raises NotFound, Gone."""
    found = yield from comment_by_id(comment_id)
    yield from _check_seen(viewer, Entity(found.entity), found.entity_id)
    return found


def comments(
    viewer: Viewer, entity: Subject, entity_id: int, *, before: int | None = None, limit: int = 50
) -> Script[list[Comment]]:
    """Comments on what the viewer sees, newest first, before an id. Raises NotFound, Gone."""
    yield from _check_seen(viewer, Entity(entity), entity_id)
    parameters = {"entity": entity, "entity_id": entity_id, "before": before, "limit": limit}
    return (yield from many(SQL["comments"], parameters, Comment))


def mentions(comment_ids: Sequence[int]) -> Query[list[tuple[int, str]]]:
    """The names of those whom some comments mention, beside the comments' ids."""
    parameters = {"ids": list(comment_ids)}
    return Query(SQL["mentions"], parameters, lambda rows: [(row["comment_id"], row["name"]) for row in rows])


def _account(number: int, *, banned_too: bool = False) -> Script[Account]:
    found = yield from accounts.users(number=number)
    if not found or (found[0].status is AccountStatus.BANNED and not banned_too):
        raise NotFound(f"No user {number}.")
    return found[0]


def _take_back(account_id: UUID, entity: Entity, entity_id: int, reactions: Sequence[Reaction]) -> Script[None]:
    parameters = {
        "entity": entity,
        "entity_id": entity_id,
        "account_id": account_id,
        "reactions": [reaction.value for reaction in reactions],
    }
    for word in (yield from column(SQL["take_back"], parameters, str)):
        yield from outbox.append(
            ReactionRemoved(account_id=account_id, entity=entity, entity_id=entity_id, reaction=Reaction(word))
        )
        yield from activity.count_one(SOURCE, Counted(entity), entity_id, Metric(word), -1)


def _own_comment(viewer: Viewer, comment_id: int, *, moderators: bool) -> Script[Comment]:
    found = yield from comment_by_id(comment_id)
    if found.account_id != viewer.account_id:  # one's own text is one's own, also where the model is hidden by now
        yield from seen_comment(viewer, comment_id)
        if not (moderators and viewer.moderator):
            raise AccessDenied(f"Comment {comment_id} is {found.name}'s; only they can change it.")
    if found.deleted_at is not None:
        raise Gone(f"Comment {comment_id} was deleted.")
    return found


def _mention(comment_id: int, author_id: UUID, content: str) -> Script[list[UUID]]:
    names = mentioned_names(content)
    if not names:
        return []
    parameters = {"comment_id": comment_id, "author_id": author_id, "names": list(names)}
    return (yield from column(SQL["mention"], parameters, UUID))


def _check_seen(viewer: Viewer, entity: Entity, entity_id: int) -> Script[None]:
    """Raises NotFound or Gone unless the viewer sees the entity."""
    match entity:
        case Entity.MODEL:
            check_model((yield from catalog.model_by_id(entity_id)), viewer)
        case Entity.VERSION:
            version = yield from catalog.version_by_id(entity_id)
            check_version(version, (yield from catalog.model_by_id(version.model_id)), viewer)
        case Entity.IMAGE:
            check_seen(viewer, (yield from policy.image(entity_id)).facts)
        case Entity.COMMENT:
            commented = yield from seen_comment(viewer, entity_id)
            if commented.content is None:
                raise Gone(f"Comment {entity_id} was deleted.")
