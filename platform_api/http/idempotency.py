"""Retried requests are one request: the Idempotency-Key header, and the seed of a request that names none."""

from __future__ import annotations

import hashlib
import secrets
from typing import Annotated, TypeVar, cast
from uuid import UUID

import msgspec
from litestar import Response
from litestar.params import HeaderParameter

from storage.errors import InvalidRequest
from storage.postgres.accounts import idempotency
from storage.postgres.connection import Script

Made = TypeVar("Made", bound=msgspec.Struct)

MAX_LENGTH = 255

IdempotencyKey = Annotated[
    str | None,
    HeaderParameter(
        name="Idempotency-Key",
        description="Up to 255 printable characters. The same key and request again get the first response again.",
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


class _Placed(msgspec.Struct):
    id: int
    url: str = ""


def created_once(
    account_id: UUID, key: str | None, request: tuple[object, ...], make: Script[Made], place: str
) -> Script[Response[Made]]:
    """201 with what `make` returns; with a key seen before and the same `request`, the first response again.

    `place` is the address of what is made, with {id} or {url} of the response in it. Raises InvalidRequest,
    IdempotencyKeyReused, and whatever `make` raises.
    """

    def made_body() -> Script[str]:
        return msgspec.json.encode((yield from make)).decode()

    # Of what was read, in sorted order: the same request with its fields in another order is the same.
    digest = hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()
    # The bytes of the first response are kept, since what is made may have changed by the time of the repeat.
    body = (yield from idempotency.once(account_id, checked_key(key), digest, made_body())).encode()
    made = msgspec.json.decode(body, type=_Placed)
    location = place.format(id=made.id, url=made.url)
    return Response(cast(Made, body), status_code=201, media_type="application/json", headers={"Location": location})


def fresh_seed() -> int:
    """A seed for a request that names none. It goes into the recipe, so a repeat of the key finds it there."""
    return secrets.randbelow(2**31)
