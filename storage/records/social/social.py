"""Social facts: who follows whom, reactions, comments and whom they mention."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from storage.errors import NotFound

MAX_COMMENT = 10_000
"""Characters of one comment."""
MAX_MENTIONS = 20
"""How many accounts one comment can mention; further names are only text."""

# A name begins after a space, a bracket or the like: me@example.org mentions nobody.
_MENTION = re.compile(r"(?<![\w@./-])@(\w[\w.-]{0,62})")


class Entity(StrEnum):
    """What can be reacted to."""

    MODEL = "model"
    VERSION = "version"
    IMAGE = "image"
    COMMENT = "comment"


class Subject(StrEnum):
    """What can be commented on."""

    MODEL = "model"
    VERSION = "version"
    IMAGE = "image"


class Reaction(StrEnum):
    """What somebody makes of an entity."""

    THUMBS_UP = "thumbs_up"
    THUMBS_DOWN = "thumbs_down"
    LIKE = "like"
    DISLIKE = "dislike"
    LAUGH = "laugh"
    CRY = "cry"
    HEART = "heart"


THUMBS = (Reaction.THUMBS_UP, Reaction.THUMBS_DOWN)
FACES = (Reaction.LIKE, Reaction.DISLIKE, Reaction.LAUGH, Reaction.CRY, Reaction.HEART)
REACTIONS: Mapping[Entity, tuple[Reaction, ...]] = {
    Entity.MODEL: THUMBS,
    Entity.VERSION: THUMBS,
    Entity.IMAGE: FACES,
    Entity.COMMENT: FACES,
}
"""Which reactions an entity takes, as on Civitai: thumbs for models and versions, faces for the rest."""


class Follow(msgspec.Struct, frozen=True, kw_only=True):
    """An account that somebody follows, by its number and name."""

    account_id: UUID
    number: int
    name: str
    created_at: datetime


class Comment(msgspec.Struct, frozen=True, kw_only=True):
    """A comment with its author's number and name. `content` is None once it is deleted or its author banned."""

    id: int
    account_id: UUID
    number: int
    name: str
    entity: Subject
    entity_id: int
    parent_id: int | None
    content: str | None
    created_at: datetime
    edited_at: datetime | None
    deleted_at: datetime | None


def check_reaction(entity: Entity, reaction: Reaction) -> None:
    """Raises NotFound for a reaction that the entity does not take."""
    if reaction not in REACTIONS[entity]:
        raise NotFound(f"A reaction to a {entity} is one of: {', '.join(REACTIONS[entity])}.")


def mentioned_names(content: str) -> tuple[str, ...]:
    """The names that a text mentions with @, in lower case, each once, in order; at most `MAX_MENTIONS`.

    A full stop or hyphen at the end belongs to the sentence.
    """
    names = (found.rstrip(".-").lower() for found in _MENTION.findall(content))
    return tuple(dict.fromkeys(names))[:MAX_MENTIONS]
