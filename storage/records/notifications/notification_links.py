"""What links in e-mail do, which work without a key. `storage/signing.py` makes tokens of them and reads those."""

from __future__ import annotations

from uuid import UUID

import msgspec

MAX_LENGTH = 2000


class Unsubscribe(msgspec.Struct, frozen=True, kw_only=True, tag="unsubscribe"):
    """No more e-mail of these types for a reader. It does not expire: old e-mail must still be able to stop new."""

    reader: int
    types: tuple[str, ...]


class Confirm(msgspec.Struct, frozen=True, kw_only=True, tag="confirm"):
    """An address is its reader's own. Another address has another endpoint, so an old link confirms nothing new."""

    endpoint_id: UUID
