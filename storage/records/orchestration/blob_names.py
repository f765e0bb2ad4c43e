"""Ids of blobs: a picture that was sent is its SHA-256, one that is drawn its workflow and the name of its file.

So a picture that is yet to be drawn has its id already.
"""

from __future__ import annotations

import re
from uuid import UUID

import msgspec

from storage.errors import NotFound
from storage.records.generation.drawings import PictureFormat

ENDINGS = {PictureFormat.PNG: "png", PictureFormat.JPEG: "jpg", PictureFormat.WEBP: "webp"}
_SENT = re.compile(r"[0-9a-f]{64}\Z")
_DRAWN = re.compile(
    r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})-([A-Za-z0-9_-]{1,64}-\d{3}\.[a-z]{3,4})\Z"
)
_PATH = re.compile(r"/v2/consumer/blobs/([^/?#]+)\Z")


class SentBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A picture that an account has sent."""

    sha256: str


class DrawnBlob(msgspec.Struct, frozen=True, kw_only=True):
    """A picture of a workflow, there or yet to be drawn."""

    job_id: UUID
    name: str

    @property
    def id(self) -> str:
        """What clients call it."""
        return f"{self.job_id}-{self.name}"


def file_name(step: str, number: int, picture_format: PictureFormat) -> str:
    """The name of a step's picture among the files of its job, the first one's number being 0."""
    return f"{step}-{number:03}.{ENDINGS[picture_format]}"


def read_blob_id(text: str) -> SentBlob | DrawnBlob:
    """What an id names. Raises NotFound for what is none of ours."""
    if _SENT.match(text):
        return SentBlob(sha256=text)
    if found := _DRAWN.match(text):
        return DrawnBlob(job_id=UUID(found[1]), name=found[2])
    raise NotFound(f"No blob '{text[:120]}'.")


def id_in_path(path: str) -> str | None:
    """The blob's id in the path of a blob's address."""
    found = _PATH.match(path)
    return found[1] if found else None
