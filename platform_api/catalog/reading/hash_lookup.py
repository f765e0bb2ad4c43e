"""Hashes that files are asked for by: one in an address, or a body that is a list of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import msgspec
from litestar.openapi.spec import OpenAPIMediaType, OpenAPIType, Operation, RequestBody, Schema

from platform_api.http.problems import MalformedBody
from storage.errors import InvalidRequest

MAX_WHOLE, MAX_IDS = 100, 10_000
# 10,000 hashes of 64 digits are 670 KB, ten times what a body may otherwise have.
MAX_BODY_BYTES = 1024 * 1024
HASH = re.compile(r"[0-9A-Fa-f]{8,64}")


class HashOwner(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The version that a hash names."""

    model_version_id: int
    model_id: int
    hash: str


@dataclass
class ByHashOperation(Operation):
    """A body that is a list of hashes, which the handler reads itself."""

    maximum: ClassVar[int] = MAX_WHOLE

    def __post_init__(self) -> None:
        """Describe the body."""
        one = Schema(type=OpenAPIType.STRING, pattern="^[0-9A-Fa-f]{8,64}$")
        several = Schema(type=OpenAPIType.ARRAY, items=one, max_items=self.maximum)
        self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=several)}, required=True)


@dataclass
class ByHashIdsOperation(ByHashOperation):
    """The same, for more of them."""

    maximum: ClassVar[int] = MAX_IDS


def read_hashes(body: bytes, maximum: int) -> Sequence[str]:
    """A JSON list of hashes. Raises MalformedBody, InvalidRequest."""
    try:
        content = cast(object, msgspec.json.decode(body))
    # Some thousand brackets in a row are a RecursionError, which would be a 500.
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedBody("The body is not JSON. Send a list of hashes.") from error
    found = cast(list[object], content) if isinstance(content, list) else None
    if found is None or len(found) > maximum:
        raise InvalidRequest({"body": f"expected a list of at most {maximum:,} hashes"})
    texts = [text for text in found if isinstance(text, str) and HASH.fullmatch(text)]
    if len(texts) < len(found):
        raise InvalidRequest({"body": "expected hashes of 8 to 64 hex digits"})
    return texts
