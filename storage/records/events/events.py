"""Events: committed facts in the outbox. One struct each; `kind` is its stable name, `subject` what it is about."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias, cast
from uuid import UUID

import msgspec

from storage.records.social.social import Entity, Reaction, Subject


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """What all events share."""

    @property
    def kind(self) -> str:
        """The stable name, for example job.submitted."""
        return cast(str, self.__struct_config__.tag)


class _JobEvent(_Event, frozen=True, kw_only=True):
    job_id: UUID

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"job:{self.job_id}"


class JobSubmitted(_JobEvent, frozen=True, kw_only=True, tag="job.submitted"):
    """A job waits for a flow run: newly submitted, or with a new attempt."""

    job_kind: str
    attempt: int


class JobStarted(_JobEvent, frozen=True, kw_only=True, tag="job.started"):
    """A flow run holds the job."""

    attempt: int


class JobCancelling(_JobEvent, frozen=True, kw_only=True, tag="job.cancelling"):
    """The owner asked a running job to stop."""

    flow_run_id: UUID | None


class JobSucceeded(_JobEvent, frozen=True, kw_only=True, tag="job.succeeded"):
    """The job is done."""

    model_version_id: int | None


class JobFailed(_JobEvent, frozen=True, kw_only=True, tag="job.failed"):
    """The job cannot be done."""

    code: str
    reason: str


class JobCancelled(_JobEvent, frozen=True, kw_only=True, tag="job.cancelled"):
    """The job stopped because its owner asked. `flow_run_id` is a flow run that must not start any more."""

    flow_run_id: UUID | None = None


class SampleReady(_JobEvent, frozen=True, kw_only=True, tag="job.sample_ready"):
    """A running job made a sample image."""

    name: str
    step: int


class ModelVersionPublished(_Event, frozen=True, kw_only=True, tag="model_version.published"):
    """A model version is in the catalogue."""

    model_version_id: int
    model_id: int
    job_id: UUID

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"model_version:{self.model_version_id}"


class Lane(StrEnum):
    """What changed, most urgent first: whether it may be shown at all, what it says, how often it was used."""

    VISIBILITY = "visibility"
    EDITS = "edits"
    COUNTS = "counts"


class ModelsChanged(_Event, frozen=True, kw_only=True, tag="models.changed"):
    """Models of the catalogue changed: their rows, or those of their versions, files, images, tags or counts.

    A trigger writes it (migration 0002): one for each model that a transaction changed, one for each batch of counts.
    """

    model_ids: tuple[int, ...]
    lane: Lane

    @property
    def subject(self) -> str:
        """What the event is about."""
        return "models"


class ImagesChanged(_Event, frozen=True, kw_only=True, tag="images.changed"):
    """Images of the catalogue changed: these, all of these models, or all that these accounts showed.

    A trigger writes it (migration 0005), as it does CreatorsChanged.
    """

    image_ids: tuple[int, ...] = ()
    model_ids: tuple[int, ...] = ()
    account_numbers: tuple[int, ...] = ()
    lane: Lane

    @property
    def subject(self) -> str:
        """What the event is about."""
        return "images"


class CreatorsChanged(_Event, frozen=True, kw_only=True, tag="creators.changed"):
    """Accounts changed as creators: their names, whether they are banned, or what they have published."""

    numbers: tuple[int, ...]
    lane: Lane

    @property
    def subject(self) -> str:
        """What the event is about."""
        return "creators"


class FollowAdded(_Event, frozen=True, kw_only=True, tag="follow.added"):
    """An account follows another one."""

    follower_id: UUID
    followed_id: UUID

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"account:{self.followed_id}"


class FollowRemoved(_Event, frozen=True, kw_only=True, tag="follow.removed"):
    """An account follows another one no more."""

    follower_id: UUID
    followed_id: UUID

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"account:{self.followed_id}"


class _ReactionEvent(_Event, frozen=True, kw_only=True):
    account_id: UUID
    entity: Entity
    entity_id: int
    reaction: Reaction

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"{self.entity}:{self.entity_id}"


class ReactionAdded(_ReactionEvent, frozen=True, kw_only=True, tag="reaction.added"):
    """An account reacted to an entity."""


class ReactionRemoved(_ReactionEvent, frozen=True, kw_only=True, tag="reaction.removed"):
    """An account took a reaction back, or put the other thumb in its place."""


class _CommentEvent(_Event, frozen=True, kw_only=True):
    comment_id: int

    @property
    def subject(self) -> str:
        """What the event is about."""
        return f"comment:{self.comment_id}"


class CommentWritten(_CommentEvent, frozen=True, kw_only=True, tag="comment.written"):
    """Somebody commented on an entity, or replied there to the comment `parent_id`."""

    account_id: UUID
    entity: Subject
    entity_id: int
    parent_id: int | None
    mentioned: tuple[UUID, ...]


class CommentEdited(_CommentEvent, frozen=True, kw_only=True, tag="comment.edited"):
    """A comment has other words. `mentioned` are those whom it did not mention before."""

    mentioned: tuple[UUID, ...]


class CommentDeleted(_CommentEvent, frozen=True, kw_only=True, tag="comment.deleted"):
    """A comment's words are gone, by its author or by a moderator."""

    by_moderator: bool


Event: TypeAlias = (
    JobSubmitted
    | JobStarted
    | JobCancelling
    | JobSucceeded
    | JobFailed
    | JobCancelled
    | SampleReady
    | ModelVersionPublished
    | ModelsChanged
    | ImagesChanged
    | CreatorsChanged
    | FollowAdded
    | FollowRemoved
    | ReactionAdded
    | ReactionRemoved
    | CommentWritten
    | CommentEdited
    | CommentDeleted
)


ChangeEvent: TypeAlias = ModelsChanged | ImagesChanged | CreatorsChanged
"""Says that rows of the catalogue changed, but not how: any number of them are one."""

CHANGES = tuple(str(one.__struct_config__.tag) for one in (ModelsChanged, ImagesChanged, CreatorsChanged))
"""Their names."""


def merged(changes: Iterable[ChangeEvent]) -> list[ChangeEvent]:
    """The same changes in as few events as there are kinds and lanes."""
    together: dict[tuple[type[ChangeEvent], Lane], dict[str, set[int]]] = {}
    for change in changes:
        numbers = together.setdefault((type(change), change.lane), {})
        for name in change.__struct_fields__:
            if name != "lane":
                numbers.setdefault(name, set()).update(getattr(change, name))
    return [
        kind(lane=lane, **{name: tuple(sorted(values)) for name, values in numbers.items()})
        for (kind, lane), numbers in together.items()
    ]


class OutboxRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the outbox."""

    id: int
    kind: str
    subject: str
    payload: dict[str, object]
    created_at: datetime
    attempts: int

    def event(self) -> Event:
        """The event the row holds."""
        return msgspec.convert({**self.payload, "kind": self.kind}, Event, strict=False)
