"""Secrets at rest: sealed with a key that lies outside the database, so that a copy of the database reveals none."""

from __future__ import annotations

import base64
import hashlib

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from storage.errors import SealBroken
from storage.settings import NotificationSettings


def sealing_key(settings: NotificationSettings, *, previous: bool = False) -> bytes:
    """What keys are derived from; the one before it if asked. Raises SealBroken when there is none."""
    key = (settings.previous_sealing_key if previous else settings.sealing_key).get_secret_value()
    if not key:
        raise SealBroken("There is no sealing key. Run darkroom up once, or set DARKROOM_NOTIFICATIONS__SEALING_KEY.")
    return key.encode()


class Seal:
    """Seals and opens texts: AES-128-CBC with an HMAC (Fernet), under a key derived from the settings' own.

    What was sealed under the key before it opens too, and is sealed again by the next write: `renewed`.
    """

    def __init__(self, settings: NotificationSettings) -> None:
        """Raises SealBroken when there is no key."""
        self._fernet = _fernet(sealing_key(settings))
        older = settings.previous_sealing_key.get_secret_value()
        self._either = MultiFernet([self._fernet, *([_fernet(older.encode())] if older else [])])

    def seal(self, text: str) -> bytes:
        """What is stored."""
        return self._fernet.encrypt(text.encode())

    def open(self, sealed: bytes) -> str:
        """What was sealed. Raises SealBroken when it was sealed with other keys than these two, or has changed."""
        try:
            return self._either.decrypt(bytes(sealed)).decode()
        except InvalidToken as error:
            raise SealBroken(
                "A sealed secret does not open: the sealing key is another one. Put the old key back, or have the "
                "address registered again."
            ) from error

    def is_current(self, sealed: bytes) -> bool:
        """Whether it was sealed under the current key."""
        try:
            self._fernet.decrypt(bytes(sealed))
        except InvalidToken:
            return False
        return True

    def renewed(self, sealed: bytes) -> bytes:
        """The same under the current key. Raises SealBroken."""
        return bytes(sealed) if self.is_current(sealed) else self.seal(self.open(sealed))


def _fernet(key: bytes) -> Fernet:
    # A setting's key has any length; Fernet takes exactly 32 bytes, in URL-safe base64.
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key).digest()))
