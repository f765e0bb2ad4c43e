"""Data sets as clients see them, and the form that uploads one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar.openapi.spec import (
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    RequestBody,
    Schema,
)
from msgspec import Meta

from storage.records.jobs.data_sets import DataSet, DataSetImage

_ID = "0b9e1f7c-54d2-4f0e-8f5a-6d1d6a1f2c33"


class DataSetView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A data set in a list."""

    id: Annotated[UUID, Meta(examples=[_ID])]
    name: Annotated[str, Meta(examples=["my mug"])]
    image_count: int
    content_hash: Annotated[str, Meta(description="The same photos have the same hash, however they were sent.")]
    created_at: datetime


class DataSetImageView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One photo in canonical form: RGB PNG without metadata."""

    position: int
    name: Annotated[str, Meta(examples=["IMG_0412.jpg"])]
    sha256: str
    size: int
    width: int
    height: int
    caption: Annotated[str, Meta(description="What it shows, for its prompt.", examples=["on the beach"])]
    repeats: Annotated[int, Meta(description="How often it comes in each pass of a training.")]
    whole_prompt: Annotated[
        bool,
        Meta(description="The caption is the prompt; else the subject is put before one that lacks it."),
    ]


class DataSetDetail(DataSetView, frozen=True, kw_only=True, rename="camel"):
    """A data set with its photos, in the order they were sent."""

    images: list[DataSetImageView]
    left_out: Annotated[
        list[str],
        Meta(description="Of an upload: what its archives had that was not taken, and why. Empty when read later."),
    ]


def view_fields(data_set: DataSet) -> dict[str, Any]:
    """What a list and a detail both show."""
    return {
        "id": data_set.id,
        "name": data_set.name,
        "image_count": data_set.image_count,
        "content_hash": data_set.content_hash,
        "created_at": data_set.created_at,
    }


def detail(data_set: DataSet, images: Sequence[DataSetImage], left_out: Sequence[str] = ()) -> DataSetDetail:
    """A data set with its photos."""
    views = [msgspec.convert(image, DataSetImageView, from_attributes=True) for image in images]
    return DataSetDetail(**view_fields(data_set), images=views, left_out=list(left_out))


@dataclass
class UploadOperation(Operation):
    """The upload's body, which the handler reads as it comes."""

    def __post_init__(self) -> None:
        """Describe the form and the raw archive."""
        binary = Schema(type=OpenAPIType.STRING, format="binary")  # pyright: ignore[reportArgumentType]
        form = Schema(
            type=OpenAPIType.OBJECT,
            properties={
                "name": Schema(type=OpenAPIType.STRING, max_length=120, description="Shown in lists."),
                "metadata": Schema(
                    type=OpenAPIType.STRING,
                    description="Captions and repeats, in lines of JSON as in metadata.jsonl: "
                    '{"file_name": "a.png", "text": "on the beach", "repeats": 2}. '
                    "whole_prompt: true takes the text as the whole prompt. "
                    "Files of an archive are named without its folders.",
                ),
                "files": Schema(
                    type=OpenAPIType.ARRAY,
                    items=binary,
                    min_items=1,
                    description="PNG, JPEG or WebP images, or .zip archives of them with their captions; 3 to 6 "
                    "photos work best.",
                ),
            },
            required=["files"],
            additional_properties=False,
        )
        content = {
            "multipart/form-data": OpenAPIMediaType(schema=form),
            "application/zip": OpenAPIMediaType(schema=binary),
        }
        self.request_body = RequestBody(content=content, required=True)
