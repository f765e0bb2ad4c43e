"""Pictures in the blob store, decoded."""

from __future__ import annotations

import io

from PIL import Image

from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted


def stored_picture(blobs: BlobStore, sha256: str) -> Image.Image:
    """A stored picture. What is in the store was made canonical when it came in.

    Raises BlobMissing, BlobCorrupted, StoreUnavailable.
    """
    content = blobs.read(sha256)
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        raise BlobCorrupted(f"Blob {sha256} is no picture. Upload it again.") from error
    return image
