"""Signed links: what opens one thing to a program that can send no key, for one reader and for a while.

A link says whom it was made for and what it opens; the signature is over both. It opens nothing by itself: when it is
used, the policy is asked what that reader may do with that thing now. So it ends with a take-down, a ban or a changed
file as everything else does. What is signed is here; `storage/signing.py` signs it.
"""

from __future__ import annotations

from uuid import UUID

import msgspec


class SigningKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The key that signs, and the one before it, whose signatures still hold. Empty: there is none."""

    current: str
    previous: str = ""

    def __bool__(self) -> bool:
        """Whether anything can be signed."""
        return bool(self.current)

    @property
    def oldest_first(self) -> list[str]:
        """Those there are; the last one signs."""
        return [*([self.previous] if self.previous else []), self.current]


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What one link opens (`subject`), for the account of which number (None: for anybody), until when (Unix s)."""

    subject: str
    reader: int | None
    expires: int

    @property
    def content(self) -> bytes:
        """What is signed."""
        return f"{self.subject}\n{'' if self.reader is None else self.reader}\n{self.expires}".encode()


def file_subject(file_id: int, name: str) -> str:
    """A link that opens one file of a version, saved under a name."""
    return f"file {file_id} {name}"


def image_subject(image_id: int, sha256: str) -> str:
    """A link that opens one image of a version. What clients put into the path's middle is not signed."""
    return f"image {image_id} {sha256}"


def job_file_subject(job_id: UUID, sha256: str) -> str:
    """A link that opens one file of a job, for the job's owner."""
    return f"job {job_id} {sha256}"
