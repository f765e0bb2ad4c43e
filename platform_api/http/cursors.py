"""Cursors of the catalogue's lists as clients hold them: opaque, and signed so that only ours are read."""

from __future__ import annotations

import base64
import binascii

import msgspec

from storage.errors import InvalidCursor
from storage.records.catalog.listing import Cursor
from storage.settings import ApiSettings

LONGEST = 4000
_SEAL_BYTES = 9
_MARK = b"cursor\n"


def write(cursor: Cursor, settings: ApiSettings) -> str:
    """A cursor as text."""
    content = msgspec.msgpack.encode(cursor)
    seal = settings.signing_keys.seal(_MARK + content)[:_SEAL_BYTES]
    return base64.urlsafe_b64encode(seal + content).decode().rstrip("=")


def read(text: str, settings: ApiSettings) -> Cursor:
    """A cursor from its text. Raises InvalidCursor."""
    refusal = InvalidCursor("The cursor is not one of ours. Send metadata.nextCursor of a page, unchanged.")
    try:
        whole = base64.b64decode((text + "=" * (-len(text) % 4)).encode("ascii"), altchars=b"-_", validate=True)
        seal, content = whole[:_SEAL_BYTES], whole[_SEAL_BYTES:]
        if len(seal) < _SEAL_BYTES or not settings.signing_keys.is_sealed(_MARK + content, seal):
            raise refusal
        return msgspec.msgpack.decode(content, type=Cursor)
    except (binascii.Error, UnicodeError, msgspec.DecodeError) as error:
        raise refusal from error
