"""Retried requests are one request: the Idempotency-Key header, and the seed of a request that names none."""

from __future__ import annotations

import secrets
from typing import Annotated

from litestar.params import Parameter

from storage.errors import InvalidRequest

MAX_LENGTH = 255

IdempotencyKey = Annotated[
    str | None,
    Parameter(
        header="Idempotency-Key",
        description="Up to 255 printable characters. The same key and request again give the first answer again.",
        required=False,
        schema_extra={"minLength": 1, "maxLength": MAX_LENGTH, "pattern": r"^[!-~]([ -~]*[!-~])?$"},
    ),
]


def checked_key(key: str | None) -> str | None:
    """The key as it is stored. Raises InvalidRequest when it is empty, too long or not printable ASCII."""
    if key is None:
        return None
    if not (1 <= len(key) <= MAX_LENGTH and key.isascii() and key.isprintable() and key.strip() == key):
        reason = f"must have 1 to {MAX_LENGTH} printable ASCII characters; a random UUID is a good key"
        raise InvalidRequest({"Idempotency-Key": reason})
    return key


def fresh_seed() -> int:
    """A seed for a request that names none. It goes into the recipe, so a repeat of the key finds it there."""
    return secrets.randbelow(2**31)
