"""Secrets at rest: sealed with a key that lies outside the database, so that a copy of the database tells none."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken

from storage.errors import SealBroken
from storage.settings import NotificationSettings


def sealing_key(settings: NotificationSettings) -> bytes:
    """What keys are derived from. Raises SealBroken when there is none."""
    key = settings.sealing_key.get_secret_value()
    if not key:
        raise SealBroken("There is no sealing key. Run darkroom up once, or set DARKROOM_NOTIFICATIONS__SEALING_KEY.")
    return key.encode()


class Seal:
    """Seals and opens texts: AES-128-CBC with an HMAC (Fernet), under a key derived from the settings' own."""

    def __init__(self, settings: NotificationSettings) -> None:
        """Raises SealBroken when there is no key."""
        self._fernet = Fernet(base64.urlsafe_b64encode(hashlib.sha256(sealing_key(settings)).digest()))

    def seal(self, text: str) -> bytes:
        """What is stored."""
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """What was sealed. Raises SealBroken when it was sealed with another key or has changed."""
        try:
            return self._fernet.decrypt(bytes(sealed)).decode()
        except InvalidToken as error:
            raise SealBroken(
                "A sealed secret does not open: the sealing key is another one. Put the old key back, or have the "
                "address registered again."
            ) from error
