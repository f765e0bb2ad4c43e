"""The key by which push services know us (VAPID, RFC 8292). Browsers bind their subscriptions to its public half.

It is derived from the sealing key: who loses that has to have every address registered again anyway.
"""

from __future__ import annotations

import base64

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from storage.sealing import sealing_key
from storage.settings import NotificationSettings

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256's base point (SP 800-186, 3.2.1.3)."""
_BYTES = 48
"""Of randomness for 32 bytes of key, so that the remainder favours none (FIPS 186-5, A.2.1)."""


def push_key(settings: NotificationSettings, *, previous: bool = False) -> ec.EllipticCurvePrivateKey:
    """The private key, on P-256; for a subscription that was sealed under the previous key, that one's. Raises
    SealBroken when there is no sealing key."""
    derived = HKDF(SHA256(), _BYTES, salt=None, info=b"web push").derive(sealing_key(settings, previous=previous))
    # 1 to the order minus 1: 0 is no private key.
    return ec.derive_private_key(int.from_bytes(derived, "big") % (_ORDER - 1) + 1, ec.SECP256R1())


def public_push_key(settings: NotificationSettings) -> str:
    """What a browser is given as `applicationServerKey`: 65 bytes in base64url. Raises SealBroken as above."""
    point = push_key(settings).public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).decode().rstrip("=")
