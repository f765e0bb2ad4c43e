"""Cursors of the catalogue's lists as clients hold them: opaque, and signed so that only ours are read."""

from __future__ import annotations

from itsdangerous import BadSignature

from storage import signing
from storage.errors import InvalidCursor
from storage.records.catalog.listing import Cursor
from storage.settings import ApiSettings

MAX_LENGTH = 4000


def write(cursor: Cursor, settings: ApiSettings) -> str:
    """A cursor as text."""
    return signing.write_token(cursor, signing.CURSOR, settings.signing_keys)


def read(text: str, settings: ApiSettings) -> Cursor:
    """A cursor from its text. Raises InvalidCursor."""
    try:
        return signing.read_token(text, Cursor, signing.CURSOR, settings.signing_keys)
    except BadSignature as error:
        raise InvalidCursor("The cursor is not one of ours. Send metadata.nextCursor of a page, unchanged.") from error
