"""Uploads of model files that arrive in parts (tus), and the rules of a file that may be uploaded."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from storage.records.catalog.vocabulary import FileType

UPLOADED_TYPES = frozenset(FileType) - {FileType.TRAINING_DATA, FileType.CONFIG, FileType.ARCHIVE, FileType.WORKFLOW}
"""What a safetensors file of a version may be."""
MAX_NAME = 120


class WantedFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender says that its bytes shall become: a file of a version. `sha256` has lower-case digits."""

    version_id: int
    name: str
    type: FileType = FileType.MODEL
    sha256: str | None = None


class ModelUpload(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `model_uploads`. `received` of `length` bytes are on the disk for good; all of them are only together
    with `file_id`, the file that they became. `metadata` is the sender's own text."""

    id: UUID
    account_id: UUID
    version_id: int
    name: str
    type: FileType
    length: int
    received: int
    expected_sha256: str | None
    metadata: str
    created_at: datetime
    expires_at: datetime
    file_id: int | None

    @property
    def wanted(self) -> WantedFile:
        """What the bytes shall become."""
        return WantedFile(version_id=self.version_id, name=self.name, type=self.type, sha256=self.expected_sha256)
