"""The facts that say who may do what with one thing: everything, flat, and nothing else."""

from __future__ import annotations

from enum import StrEnum
from uuid import UUID

import msgspec

from storage.records.catalog.catalog import Model, ModelVersion, VersionFile
from storage.records.catalog.vocabulary import Availability, BrowsingLevel, ModelMode, Status


class Thing(StrEnum):
    """What the facts are of."""

    MODEL = "model"
    VERSION = "model version"
    FILE = "file"
    IMAGE = "image"
    OWN = "own"
    """A job and its files, a data set, an upload, a notification: its owner's alone."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that decides about one thing, as the database has it at one moment.

    `owner_id` is the model's owner, or whose the thing is. What a thing does not have (a model no version, a version no
    image) keeps its default. storage/postgres/policy/policy.sql reads the same fields; a way to hide a thing is one
    more field here, one more column there and one branch in rights.py.
    """

    thing: Thing
    owner_id: UUID
    owner_active: bool
    # Of the model.
    model_id: int = 0
    status: Status = Status.PUBLISHED
    availability: Availability = Availability.PUBLIC
    mode: ModelMode | None = None
    was_published: bool = False
    gone: bool = False
    gone_reason: str | None = None
    has_public_version: bool = False
    """Whether one of its versions is public by itself."""
    # Of the version.
    version_id: int = 0
    version_status: Status = Status.PUBLISHED
    version_availability: Availability = Availability.PUBLIC
    version_was_published: bool = False
    version_gone: bool = False
    version_gone_reason: str | None = None
    has_public_file: bool = False
    """Whether the version has weights that everybody may know of."""
    require_auth: bool = False
    usage_control: str = "Download"
    # Of the file.
    file_id: int = 0
    visibility: str = "Public"
    file_gone: bool = False
    # Of the image.
    image_id: int = 0
    image_level: int = BrowsingLevel.PG
    image_gone: bool = False
    shown_by_active: bool = True
    """Whether the account that showed the image is not banned; it need not be the model's owner."""
    level: int = 63
    """The browsing levels of the thing itself, as bits: a list shows it for one of them."""

    @property
    def name(self) -> str:
        """What a thing of the catalogue is called in a refusal."""
        numbers = {
            Thing.MODEL: self.model_id,
            Thing.VERSION: self.version_id,
            Thing.FILE: self.file_id,
            Thing.IMAGE: self.image_id,
        }
        return f"{self.thing.value} {numbers[self.thing]}"


def model_facts(model: Model) -> Facts:
    """Of a model, from its row."""
    return Facts(
        thing=Thing.MODEL,
        owner_id=model.account_id,
        owner_active=model.owner_active,
        model_id=model.id,
        status=model.status,
        availability=model.availability,
        mode=model.mode,
        was_published=model.published_at is not None,
        gone=model.gone_at is not None,
        gone_reason=model.gone_reason,
        has_public_version=bool(model.public_versions),
        level=model.nsfw_level,
    )


def version_facts(model: Model, version: ModelVersion) -> Facts:
    """Of a version, from its row and its model's.

    Whether it has a public file is read off the model's `public_versions`: right for what is published, and asked of
    nothing else.
    """
    return msgspec.structs.replace(
        model_facts(model),
        thing=Thing.VERSION,
        version_id=version.id,
        version_status=version.status,
        version_availability=version.availability,
        version_was_published=version.published_at is not None,
        version_gone=version.gone_at is not None,
        version_gone_reason=version.gone_reason,
        has_public_file=version.id in model.public_versions,
        require_auth=version.require_auth,
        usage_control=version.usage_control,
        level=version.nsfw_level,
    )


def file_facts(version: Facts, file: VersionFile) -> Facts:
    """Of a file, from its row and its version's facts."""
    return msgspec.structs.replace(version, thing=Thing.FILE, file_id=file.id, visibility=file.visibility)


def own_facts(owner_id: UUID, *, owner_active: bool = True) -> Facts:
    """Of what is its owner's alone."""
    return Facts(thing=Thing.OWN, owner_id=owner_id, owner_active=owner_active)
