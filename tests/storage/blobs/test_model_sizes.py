"""How large a model is, from the headers of its files: on a disk and in the blob store alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.blobs.model_sizes import sizes_in_store, sizes_of_folder
from storage.blobs.store import BlobStore
from storage.errors import BlobMissing, WeightsRefused
from storage.settings import BlobSettings
from tests.storage.model_files import PARAMETERS, stored_model, write_model


def test_a_folder_and_the_blob_store_say_the_same(tmp_path: Path) -> None:
    blobs = BlobStore(BlobSettings(url=f"file://{tmp_path}/blobs"))
    stored = sizes_in_store(blobs, stored_model(blobs, tmp_path / "model"))
    sizes = sizes_of_folder(tmp_path / "model")
    assert stored == sizes
    assert {part: sizes.parameters(part) for part in sizes.shapes} == PARAMETERS
    assert (sizes.vae_factor, sizes.unet.channels, sizes.unet.attends) == (8, (32, 32), (True, False))
    assert sizes.texts["text_encoder"].width == 16
    assert sizes.stored == sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.safetensors"))
    assert sizes.other_bytes == sum(path.stat().st_size for path in (tmp_path / "model").rglob("*.json"))


def test_shards_count_together(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    whole = folder / "unet/diffusion_pytorch_model.safetensors"
    (folder / "unet/diffusion_pytorch_model-00001-of-00001.safetensors").write_bytes(whole.read_bytes())
    whole.unlink()
    assert sizes_of_folder(folder).parameters("unet") == PARAMETERS["unet"]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("unet/diffusion_pytorch_model.safetensors", None, "has no weights of a UNet"),
        ("unet/config.json", None, "has no unet/config.json"),
        ("vae/config.json", b"[]", "vae/config.json of the base model is not a JSON object"),
        ("unet/diffusion_pytorch_model.safetensors", b"PK\x03\x04" * 9, "diffusion_pytorch_model.safetensors"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, path: str, content: bytes | None, message: str) -> None:
    file = write_model(tmp_path) / path
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(WeightsRefused, match=message):
        sizes_of_folder(tmp_path)


def test_bytes_that_are_gone_are_named(tmp_path: Path) -> None:
    blobs = BlobStore(BlobSettings(url=f"file://{tmp_path}/blobs"))
    files = stored_model(blobs, tmp_path / "model")
    blobs.delete(next(file.sha256 for file in files if file.path == "unet/config.json"))
    with pytest.raises(BlobMissing):
        sizes_in_store(blobs, files)
