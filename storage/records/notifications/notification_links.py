"""Links in e-mail that work without a key: each holds what it does and our signature over that."""

from __future__ import annotations

import base64
import binascii
from typing import TypeVar
from uuid import UUID

import msgspec

from storage.errors import LinkRefused
from storage.records.policy.signed_links import SigningKeys

Link = TypeVar("Link", bound=msgspec.Struct)

LONGEST = 2000
_SEAL_BYTES = 16
_MARK = b"notification link\n"


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True, tag="unsubscribe"):
    """No more e-mail of these types for a reader. It does not expire: old e-mail must still be able to stop new."""

    reader: int
    types: tuple[str, ...]


class Confirm(msgspec.Struct, frozen=True, kw_only=True, tag="confirm"):
    """An address is its reader's own. Another address has another endpoint, so an old link confirms nothing new."""

    endpoint_id: UUID


def write_link(link: msgspec.Struct, keys: SigningKeys) -> str:
    """A link's token. Raises LinkRefused without a signing key."""
    content = msgspec.msgpack.encode(link)
    return base64.urlsafe_b64encode(_checked(keys).seal(_MARK + content)[:_SEAL_BYTES] + content).decode().rstrip("=")


def read_link(token: str, kind: type[Link], keys: SigningKeys) -> Link:
    """What a token does. Raises LinkRefused for all but our own of this kind."""
    refusal = LinkRefused("The link is not one of ours, or not whole. Copy all of it from the e-mail.")
    try:
        whole = base64.b64decode((token + "=" * (-len(token) % 4)).encode("ascii"), altchars=b"-_", validate=True)
        seal, content = whole[:_SEAL_BYTES], whole[_SEAL_BYTES:]
        if len(seal) < _SEAL_BYTES or not _checked(keys).is_sealed(_MARK + content, seal):
            raise refusal
        return msgspec.msgpack.decode(content, type=kind)
    except (binascii.Error, UnicodeError, msgspec.DecodeError) as error:
        raise refusal from error


def _checked(keys: SigningKeys) -> SigningKeys:
    if not keys:
        raise LinkRefused("There is no signing key, so no link can be read or made. Run darkroom up once.")
    return keys
