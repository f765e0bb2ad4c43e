"""Signed links: what opens one thing to a program that can send no key, for one reader and for a while.

A link says whom it was made for and what it opens; the signature is over both. It opens nothing by itself: when it is
used, the policy is asked what that reader may do with that thing now. So it ends with a take-down, a ban or a changed
file as everything else does.
"""

from __future__ import annotations

import hashlib
import hmac
from urllib.parse import urlencode
from uuid import UUID

import msgspec


class SigningKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The key that signs, and the one before it, whose signatures still hold. Empty: there is none."""

    current: str
    previous: str = ""

    def __bool__(self) -> bool:
        """Whether anything can be signed."""
        return bool(self.current)

    def seal(self, content: bytes) -> bytes:
        """HMAC-SHA256 over content (32 bytes), under the current key."""
        return _seal(self.current, content)

    def is_sealed(self, content: bytes, seal: bytes) -> bool:
        """Whether `seal`, or its beginning, is ours under either key. Compared in constant time."""
        keys = [self.current, *([self.previous] if self.previous else [])]
        return bool(seal) and any(hmac.compare_digest(seal, _seal(key, content)[: len(seal)]) for key in keys)


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What one link opens (`subject`), for the account of which number (None: for anybody), until when (Unix s)."""

    subject: str
    reader: int | None
    expires: int

    def query(self, keys: SigningKeys) -> str:
        """The query that makes an address such a link."""
        whom = {} if self.reader is None else {"for": self.reader}
        return urlencode({**whom, "expires": self.expires, "signature": keys.seal(self._content()).hex()})

    def is_signed(self, signature: str, keys: SigningKeys, now: int) -> bool:
        """Whether `signature` is ours for exactly this, and its time is still to come."""
        try:
            seal = bytes.fromhex(signature)
        except ValueError:
            return False
        whole = len(seal) == hashlib.sha256().digest_size
        return bool(keys) and self.expires > now and whole and keys.is_sealed(self._content(), seal)

    def _content(self) -> bytes:
        return f"link\n{self.subject}\n{'' if self.reader is None else self.reader}\n{self.expires}".encode()


def file_subject(file_id: int, name: str) -> str:
    """A link that opens one file of a version, saved under a name."""
    return f"file {file_id} {name}"


def image_subject(image_id: int, sha256: str) -> str:
    """A link that opens one image of a version. What clients put into the path's middle is not signed."""
    return f"image {image_id} {sha256}"


def job_file_subject(job_id: UUID, sha256: str) -> str:
    """A link that opens one file of a job, for the job's owner."""
    return f"job {job_id} {sha256}"


def job_image_link(job_id: UUID, sha256: str, expires: int, keys: SigningKeys) -> str:
    """The path and query of an image of a job, good without a key until then."""
    link = Link(subject=job_file_subject(job_id, sha256), reader=None, expires=expires)
    return f"/api/v1/images/{sha256}?{urlencode({'job': job_id})}&{link.query(keys)}"


def _seal(key: str, content: bytes) -> bytes:
    return hmac.new(key.encode(), content, hashlib.sha256).digest()
