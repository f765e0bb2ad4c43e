"""A browser's push subscription: where its push service takes messages, and the keys that only it can read them with.

Pure. The form is the one that browsers give (PushSubscription.toJSON).
"""

from __future__ import annotations

import base64
import binascii

import msgspec

from storage.errors import AddressRefused
from storage.records.notifications.addresses import WebAddress, read_web_address

_POINT_BYTES, _AUTH_BYTES = 65, 16
_P = 2**256 - 2**224 + 2**192 + 2**96 - 1
_B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
"""The curve P-256 is y² = x³ - 3x + b modulo p (SP 800-186, 3.2.1.3)."""


class PushKeys(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In base64url: the browser's public key, a point of P-256 (65 bytes), and a secret shared with it (16 bytes)."""

    p256dh: str
    auth: str


class PushSubscription(msgspec.Struct, frozen=True, kw_only=True):
    """Where and for whom pushes are encrypted (RFC 8291)."""

    endpoint: str
    keys: PushKeys


def read_endpoint(text: str) -> WebAddress:
    """A push service's address. Raises AddressRefused for all but https addresses of public hosts."""
    address = read_web_address(text)
    if ":" in address.host:
        raise AddressRefused("must name the push service's host")  # it is sent its own name, signed (RFC 8292)
    return address


def read_keys(keys: PushKeys) -> tuple[bytes, bytes]:
    """The public key and the secret. Raises AddressRefused when either cannot be one."""
    point, auth = _bytes(keys.p256dh), _bytes(keys.auth)
    # 4 begins an uncompressed point, the only form that browsers send.
    if len(point) != _POINT_BYTES or point[0] != 4 or not _on_curve(point):
        raise AddressRefused("p256dh must be a public key on P-256, 65 bytes in base64url, as the browser sends it")
    if len(auth) != _AUTH_BYTES:
        raise AddressRefused("auth must be 16 bytes in base64url, as the browser sends it")
    return point, auth


def _on_curve(point: bytes) -> bool:
    x, y = int.from_bytes(point[1:33], "big"), int.from_bytes(point[33:], "big")
    return x < _P and y < _P and (y * y - (x**3 - 3 * x + _B)) % _P == 0


def _bytes(text: str) -> bytes:
    """What base64url says, with or without its padding; nothing when it is none."""
    bare = text.rstrip("=")
    try:
        return base64.b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""
