"""A stored picture is decoded; what is none is named by its hash."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from storage.blobs.pictures.stored import stored_picture
from storage.blobs.store import BlobStore
from storage.errors import BlobCorrupted, BlobMissing
from storage.settings import BlobSettings


def test_a_stored_picture_is_decoded_and_what_is_none_is_named(tmp_path: Path) -> None:
    blobs = BlobStore(BlobSettings(url=tmp_path.as_uri()))
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2), (1, 2, 3)).save(buffer, "PNG")
    whole, cut = blobs.put(buffer.getvalue()), blobs.put(buffer.getvalue()[:40])

    assert stored_picture(blobs, whole.sha256).getpixel((3, 1)) == (1, 2, 3)
    with pytest.raises(BlobCorrupted, match=cut.sha256):
        stored_picture(blobs, cut.sha256)
    with pytest.raises(BlobMissing):
        stored_picture(blobs, "0" * 64)
