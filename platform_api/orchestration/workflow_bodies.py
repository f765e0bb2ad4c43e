"""Bodies of the routes of workflows, which read them as they come, in the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from storage.records.orchestration.json_patch import MAX_OPERATIONS
from storage.records.orchestration.left_out import STEP_TYPES
from storage.records.orchestration.statuses import WorkflowStatus
from storage.records.orchestration.templates import MAX_TAG_LENGTH, MAX_TAGS, Tag, Written

_TEXT, _NUMBER, _OBJECT = OpenAPIType.STRING, OpenAPIType.NUMBER, OpenAPIType.OBJECT


class WorkflowUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What is left out stays."""

    status: WorkflowStatus | None = None
    metadata: Written | None = None
    tags: list[Tag] | None = None
    allow_mature_content: bool | None = None


class StepUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written on a step, in place of what was."""

    metadata: Written


def documented(schema: Schema, kind: str = "application/json", *, required: bool = True) -> type[Operation]:
    """An operation with a body of this form."""

    @dataclass  # Litestar's base calls __post_init__ only for dataclasses
    class Documented(Operation):
        """An operation whose handler reads its body by itself."""

        def __post_init__(self) -> None:
            """Describe the body."""
            self.request_body = RequestBody(content={kind: OpenAPIMediaType(schema=schema)}, required=required)

    return Documented


def an_object(properties: dict[str, Schema], *required: str, **more: Any) -> Schema:
    """An object with these members alone."""
    return Schema(
        type=_OBJECT, properties=dict(properties), required=list(required), additional_properties=False, **more
    )


_WRITTEN = Schema(type=_OBJECT, description="The caller's own, up to 64 KiB.")
TAG = Schema(type=_TEXT, min_length=1, max_length=MAX_TAG_LENGTH)
_TAGS = Schema(type=OpenAPIType.ARRAY, items=TAG, max_items=MAX_TAGS)
_STEP = an_object(
    {
        "$type": Schema(type=_TEXT, enum=list(STEP_TYPES)),
        "name": Schema(type=_TEXT, pattern=r"^[A-Za-z0-9_-]{1,64}$"),
        "priority": Schema(type=_TEXT, enum=["high", "normal", "low"]),
        "timeout": Schema(type=_TEXT, description="Ignored."),
        "retries": Schema(type=OpenAPIType.INTEGER, description="Ignored."),
        "metadata": _WRITTEN,
        "input": Schema(type=_OBJECT, description="As `@civitai/client` types it for `$type`."),
    },
    "$type",
    "input",
)
TEMPLATE_BODY = documented(
    an_object(
        {
            "steps": Schema(type=OpenAPIType.ARRAY, items=_STEP, min_items=1, max_items=16),
            "metadata": _WRITTEN,
            "tags": _TAGS,
            "externalId": Schema(type=_TEXT, pattern=r"^[A-Za-z0-9_-]{1,128}$"),
            "currencies": Schema(type=OpenAPIType.ARRAY, items=Schema(type=_TEXT), description="Ignored."),
        },
        "steps",
    )
)
UPDATE_BODY = documented(
    an_object(
        {
            "status": Schema(type=_TEXT, enum=[WorkflowStatus.CANCELED.value]),
            "metadata": _WRITTEN,
            "tags": _TAGS,
            "allowMatureContent": Schema(type=OpenAPIType.BOOLEAN),
        }
    )
)
STEP_BODY = documented(an_object({"metadata": _WRITTEN}, "metadata"))
PATCH_BODY = documented(
    Schema(
        type=OpenAPIType.ARRAY,
        max_items=MAX_OPERATIONS,
        items=an_object(
            {
                "op": Schema(type=_TEXT, enum=["add", "remove", "replace", "move", "copy", "test"]),
                "path": Schema(type=_TEXT, max_length=1000),
                "from": Schema(type=_TEXT, max_length=1000),
                "value": Schema(description="Any JSON."),
            },
            "op",
            "path",
        ),
    ),
    "application/json-patch+json",
)
TAG_BODY = documented(TAG)
INPUT_BODY = documented(Schema(description="The step's input as `@civitai/client` types it; of imageUpload a text."))
