"""Request bodies of the routes that write models, versions, files and images: the fields, each with its bounds.

`validation` has the rules that a type cannot say.

A body names only what it says; `kept` returns it by column, in the form in which it is stored.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from platform_api.catalog.writing.validation import RULES, Unfit
from platform_api.http.json_bodies import LINES
from storage.errors import InvalidRequest
from storage.records.catalog.vocabulary import (
    Availability,
    BaseModelType,
    CheckpointType,
    CommercialUse,
    FileType,
    ModelType,
    Precision,
    SizeKind,
)

Name = Annotated[str, Meta(min_length=1, max_length=120, examples=["Copper Lantern"])]
Description = Annotated[
    str,
    Meta(max_length=20_000, description="Text or HTML; what is no plain formatting is left out."),
    LINES,
]
Tags = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=100)]],
    Meta(max_length=50, description="Letters, digits, blanks and -_.+&'; kept in lower case.", examples=[["style"]]),
]
CommercialUses = Annotated[
    list[CommercialUse], Meta(max_length=5, description="What others may earn money with; None stands alone.")
]
TrainedWords = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=300)]], Meta(max_length=100, description="Say these in a prompt.")
]
BaseModelName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        description="The base model's catalogue name; /enums lists those known.",
        examples=["SD 1.5"],
    ),
]
Steps = Annotated[int, Meta(ge=1, le=100_000_000)]
Epochs = Annotated[int, Meta(ge=1, le=1_000_000)]
ClipSkip = Annotated[int, Meta(ge=1, le=12)]
FileName = Annotated[str, Meta(min_length=1, max_length=200, description="What it is saved as, with its extension.")]
Level = Annotated[Literal[1, 2, 4, 8, 16, 32], Meta(description="PG 1, PG-13 2, R 4, X 8, XXX 16, blocked 32.")]
ImageMeta = Annotated[
    dict[str, Any],
    Meta(description="How it was made: prompt, negativePrompt, steps, sampler, cfgScale, seed, Size, ..."),
    LINES,
]
Reason = Annotated[str, Meta(min_length=1, max_length=300, examples=["copyright claim 12"])]


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A JSON object of a client."""


class _ModelBody(_Body, frozen=True, kw_only=True, rename="camel"):
    description: Description | UnsetType = UNSET
    availability: Availability | UnsetType = UNSET
    checkpoint_type: CheckpointType | UnsetType | None = UNSET
    nsfw: bool | UnsetType = UNSET
    poi: Annotated[bool, Meta(description="Of a real person.")] | UnsetType = UNSET
    minor: Annotated[bool, Meta(description="Of somebody under age; never with nsfw.")] | UnsetType = UNSET
    sfw_only: Annotated[bool, Meta(description="Must not be used for what is explicit.")] | UnsetType = UNSET
    allow_no_credit: bool | UnsetType = UNSET
    allow_commercial_use: CommercialUses | UnsetType = UNSET
    allow_derivatives: bool | UnsetType = UNSET
    allow_different_license: bool | UnsetType = UNSET
    tags: Tags | UnsetType = UNSET


class NewModel(_ModelBody, frozen=True, kw_only=True, rename="camel"):
    """A model to make, as a draft."""

    name: Name
    type: ModelType


class ModelChanges(_ModelBody, frozen=True, kw_only=True, rename="camel"):
    """What to say of a model from now on; what is left out stays."""

    name: Name | UnsetType = UNSET
    type: ModelType | UnsetType = UNSET
    mode: (
        Annotated[Literal["Archived"] | None, Meta(description="Archived: shown without files; null: not any more.")]
        | UnsetType
    ) = UNSET


class _VersionBody(_Body, frozen=True, kw_only=True, rename="camel"):
    description: Description | UnsetType = UNSET
    availability: Availability | UnsetType = UNSET
    base_model_type: BaseModelType | UnsetType = UNSET
    trained_words: TrainedWords | UnsetType = UNSET
    steps: Steps | UnsetType | None = UNSET
    epochs: Epochs | UnsetType | None = UNSET
    clip_skip: ClipSkip | UnsetType | None = UNSET


class NewVersion(_VersionBody, frozen=True, kw_only=True, rename="camel"):
    """A version to add to a model, as a draft without files."""

    name: Name
    base_model: BaseModelName


class VersionChanges(_VersionBody, frozen=True, kw_only=True, rename="camel"):
    """What to say of a version from now on; what is left out stays."""

    name: Name | UnsetType = UNSET
    base_model: BaseModelName | UnsetType = UNSET


class FileChanges(_Body, frozen=True, kw_only=True, rename="camel"):
    """What to say of a file from now on; what is left out stays."""

    type: FileType | UnsetType = UNSET
    size_kind: SizeKind | UnsetType | None = msgspec.field(name="size", default=UNSET)
    fp: Precision | UnsetType | None = UNSET
    visibility: Literal["Public", "Private"] | UnsetType = UNSET
    override_name: FileName | UnsetType | None = UNSET


class ImageChanges(_Body, frozen=True, kw_only=True, rename="camel"):
    """What to say of an image from now on; what is left out stays."""

    nsfw_level: Level | UnsetType = UNSET
    meta: ImageMeta | UnsetType | None = UNSET


class Publication(_Body, frozen=True, kw_only=True):
    """When to publish; at once when it does not say."""

    at: Annotated[datetime, Meta(tz=True, description="At most a year from now.")] | None = None


class ModerationReason(_Body, frozen=True, kw_only=True):
    """Why something is taken from everybody's sight; they are notified."""

    reason: Reason


def kept(body: msgspec.Struct) -> dict[str, Any]:
    """What a body says, by column, as it is stored. Raises InvalidRequest naming every field that does not pass."""
    found: dict[str, Any] = {}
    wrong: dict[str, str] = {}
    for field in msgspec.structs.fields(type(body)):
        value = getattr(body, field.name)
        # Left out is not null: null empties a field, and what is left out stays.
        if value is UNSET:
            continue
        try:
            found[field.name] = value if value is None else RULES.get(field.name, _as_it_is)(value)
        except Unfit as fault:
            wrong[field.encode_name] = str(fault)
    if wrong:
        raise InvalidRequest(wrong)
    return cast(dict[str, Any], msgspec.to_builtins(found))


def _as_it_is(value: Any) -> Any:
    return value
