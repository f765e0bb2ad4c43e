"""Damaged bytes that can be made again."""

from __future__ import annotations

from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing


def is_whole(blobs: BlobStore, sha256: str) -> bool:
    """Whether a blob, which memory has room for, is there with the bytes of its name.

    A damaged one is deleted, since a put of the good bytes would find it under their name. Raises StoreUnavailable.
    """
    try:
        blobs.read(sha256)
    except BlobMissing:
        return False
    except BlobCorrupted:
        blobs.delete(sha256)
        return False
    return True
