"""What people give a training by mistake, through the command line and the API: a reason that says what to do, no
traceback, and nothing left behind.

What shows only while a job runs is tested beside the flow: memory and disk that run out in test_limits.py and numbers
that are none in test_callbacks.py, both in tests/flows/training; photos on a full disk in
tests/platform_api/catalog/uploads/test_incoming_files.py.
"""

from __future__ import annotations

import io
import json
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from flows.starter.networks import write_tiny_model
from tests.deployments.commands.catalog.test_importing import mine
from tests.deployments.line import Line
from tests.platform_api.door import photo, upload
from tests.platform_api.sending import a_sender
from tests.storage.blobs.test_images import frames, png_header


def encoded(image: Image.Image, kind: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


GOOD = {"1.png": photo(1), "2.png": photo(2)}
PHOTOS: dict[str, tuple[dict[str, bytes], str]] = {
    "an empty folder": ({}, "no photos in .* files ending in .jpeg, .jpg, .png, .webp, .zip are taken. Put 3 to 6"),
    "no image at all": ({"a.mov": b"x", "b.heic": b"x"}, "no photos in"),
    "one photo": ({"1.png": photo(1)}, "Send at least 2"),
    "one photo twice": ({"1.png": photo(1), "2.png": photo(1)}, "All photos are the same one. Send different ones"),
    "half a PNG": (GOOD | {"a.png": photo(3)[:3000]}, "'a.png' is damaged or cut short; export it again"),
    "nothing": (GOOD | {"a.png": b""}, "'a.png' is not a PNG, JPEG or WebP image, whatever its name says"),
    "text": (GOOD | {"a.jpg": b"no picture " * 50}, "'a.jpg' is not a PNG, JPEG or WebP image"),
    "an HTML page": (GOOD | {"a.webp": b"<!doctype html>" * 9}, "'a.webp' is not a PNG, JPEG or WebP image"),
    "a GIF called PNG": (GOOD | {"a.png": encoded(Image.new("P", (32, 32)), "GIF")}, "'a.png' is not a PNG"),
    "one pixel": (GOOD | {"a.png": encoded(Image.new("RGB", (1, 1)), "PNG")}, "'a.png' is 1 x 1 pixels; both sides"),
    "a sliver": (
        GOOD | {"a.png": encoded(Image.new("RGB", (999, 20)), "PNG")},
        "'a.png' is 999 x 20 pixels; .* 16 times",
    ),
    "huge": (
        GOOD | {"a.png": png_header(20_000, 20_000)},
        "'a.png' has .* pixels, which is the limit. Export it smaller",
    ),
    "an animated WebP": (GOOD | {"a.webp": frames("WEBP")}, "'a.webp' is an animated WebP; export one frame as PNG"),
    "an animated PNG": (GOOD | {"a.png": frames("PNG")}, "'a.png' is an animated PNG; export one frame as PNG or JPEG"),
    "a caption that is no text": (GOOD | {"1.txt": b"\xff\xfe\x00"}, "1.txt is not UTF-8 text. Save the caption again"),
    "a caption without end": (
        GOOD | {"1.txt": b"mug " * 900},
        "1.txt has 3,599 characters; a caption has 2,000 at most",
    ),
    "lines that name nothing": (GOOD | {"metadata.jsonl": b'{"file_name": "3.png"}'}, "'3.png', which is not there"),
    "a zip of no photos": ({"a.zip": b"PK\x03\x04" * 9, **GOOD}, "a.zip: The file is not a zip archive"),
}


def without_breaks(text: str) -> str:
    return " ".join(text.split())


def photos(line: Line, files: dict[str, bytes]) -> Path:
    folder = line.folder / "given"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def assert_nothing_is_left(line: Line) -> None:
    assert line.jobs() == []
    assert line.door.client().get("/api/v1/data-sets").json()["items"] == []
    assert line.door.staging == []


@pytest.mark.parametrize("what", PHOTOS)
def test_photos_that_cannot_be_taken_are_named_with_what_to_do(line: Line, what: str) -> None:
    files, reason = PHOTOS[what]
    result = line("train", photos(line, files), "mug", "--yes")
    assert result.exit_code == 1
    assert re.search(reason, without_breaks(result.output)), result.output
    assert "Traceback" not in result.output
    assert_nothing_is_left(line)


def test_what_can_be_taken_though_few_programs_write_it_is(line: Line) -> None:
    """CMYK, 16 bits, grey, palettes and transparency: each becomes an RGB photo."""
    grey = Image.frombytes("I;16", (32, 32), random.Random(1).randbytes(2048))
    files = {
        "cmyk.jpg": encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), "JPEG"),
        "deep.png": encoded(grey, "PNG"),
        "grey.png": encoded(Image.new("L", (32, 32), 9), "PNG"),
        "palette.png": encoded(Image.new("P", (32, 40), 3), "PNG"),
        "clear.png": encoded(Image.new("RGBA", (32, 32), (255, 0, 0, 9)), "PNG"),
    }
    result = line("train", photos(line, files), "mug", "--yes", "--detach")
    assert result.exit_code == 0, result.output
    assert "uploaded 5 photos" in result.output
    client = line.door.client()
    [data_set] = client.get("/api/v1/data-sets").json()["items"]
    for image in client.get(f"/api/v1/data-sets/{data_set['id']}").json()["images"]:
        [blob] = [path for path in line.door.blobs if path.name == image["sha256"]]
        with Image.open(blob) as stored:
            assert stored.mode == "RGB"


REQUESTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "the identifier is the class word": ({"identifier": "mug"}, "identifier", "is a word of the class 'mug'"),
    "the identifier is the class word in capitals": ({"identifier": "MUG"}, "identifier", "would have one prompt"),
    "the identifier is several words": ({"identifier": "my own"}, "identifier", "must be one rare word"),
    "a class of punctuation": ({"classWord": "mug!"}, "classWord", "must be plain words"),
    "a class that the base does not know": ({"classWord": "dog"}, "classWord", "darkroom base add FOLDER"),
    "another resolution than the base's": ({"resolution": 512}, "resolution", "has the resolution of its base model"),
    "shapes larger than the base": ({"bucketing": True, "bucketMinSide": 512}, "bucketMinSide", "at most the base's"),
    "a rate without a number": ({"learningRate": "fast"}, "learningRate", "number"),
    "no step": ({"steps": 0}, "steps", "1"),
    "a base that there is not": ({"baseModel": "sd15"}, "baseModel", "darkroom base add FOLDER"),
}


@pytest.mark.parametrize("what", REQUESTS)
def test_a_request_that_cannot_be_learned_names_its_field(line: Line, what: str) -> None:
    wrong, field, reason = REQUESTS[what]
    client = line.door.client()
    body = {"dataSetId": upload(client)["id"], "classWord": "mug", "baseModel": "starter", **wrong}
    refused = client.post("/api/v1/training-jobs", json=body)
    assert refused.status_code == 422, refused.text
    assert field in refused.json()["errors"], refused.text
    assert reason in refused.json()["errors"][field]
    assert line.jobs() == []


def _edited(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _shard_missing(folder: Path) -> None:
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "unet" / f"{weights.name}.index.json").write_text(json.dumps(index))
    weights.unlink()


BASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty folder": (shutil.rmtree, "has no model_index.json|there is no|is not"),
    "no text encoder": (lambda folder: shutil.rmtree(folder / "text_encoder"), "text_encoder/ is missing"),
    "no weights": (
        lambda folder: (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink(),
        "vae/diffusion_pytorch_model.safetensors",
    ),
    "a shard is missing": (_shard_missing, "diffusion_pytorch_model-00001-of-00002.safetensors"),
    "a pickle": (
        lambda folder: (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(
            folder / "unet" / "diffusion_pytorch_model.bin"
        ),
        "unet/diffusion_pytorch_model.bin is a pickle, .*save_pretrained",
    ),
    "a resolution that the VAE cannot take": (
        lambda folder: _edited(folder / "darkroom.json", resolution=66),
        "66 is not a positive multiple of 4, the VAE's reduction",
    ),
}


@pytest.mark.parametrize("what", BASES)
def test_a_base_that_cannot_be_trained_is_refused_when_it_is_added(line: Line, what: str) -> None:
    spoil, reason = BASES[what]
    write_tiny_model(line.folder / "base", seed=0)
    spoil(line.folder / "base")
    before = line.door.blobs
    result = line("base", "add", line.folder / "base", "--name", "spoiled")
    assert result.exit_code == 1
    assert re.search(reason, without_breaks(result.output)), result.output
    assert "Traceback" not in result.output
    assert "spoiled" not in line("base", "list").output
    assert line.door.blobs == before


KEY = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


def lora_of_xl(file: Path) -> Path:
    """A LoRA as kohya writes it for Stable Diffusion XL: its keys read text vectors of 2,048 numbers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {f"lora_unet_{KEY}.lora_down.weight": (4, 2048), f"lora_unet_{KEY}.lora_up.weight": (640, 4)}
    save_file({name: np.ones(shape, np.float16) for name, shape in tensors.items()}, file)
    return file


OTHER_FAMILY = r"does not take the 768 numbers of a text vector of the family sd1\. Check the version's base model\."


def test_a_lora_is_no_base_model(line: Line) -> None:
    before = line.door.blobs
    result = line("base", "add", lora_of_xl(line.folder / "style.safetensors"), "--name", "style")
    assert result.exit_code == 1
    assert "style.safetensors is no single file of the family sd1 or sdxl: it is a LoRA, not a base model." in (
        without_breaks(result.output)
    )
    assert "Traceback" not in result.output
    assert line.door.blobs == before


def test_a_lora_of_another_family_is_not_imported(line: Line) -> None:
    file = lora_of_xl(line.folder / "models" / "style.safetensors")
    file.with_suffix(".json").write_text(json.dumps({"baseModel": "SD 1.5"}))
    result = line("import", file.parent)
    assert result.exit_code == 1
    assert re.search(f"style.safetensors: .*{OTHER_FAMILY}", without_breaks(result.output)), result.output
    assert without_breaks(result.output).endswith("0 imported, 0 there already, 1 refused")
    assert mine(line) == []


def test_a_lora_of_another_family_joins_no_version(line: Line) -> None:
    sender = a_sender(line.door, account="lora-owner")
    before = sender.everything()
    content = lora_of_xl(line.folder / "style.safetensors").read_bytes()
    path = sender.begin(len(content), "style.safetensors")
    for refused in (sender.put(content, "style.safetensors"), sender.send(path, 0, content)):
        assert (refused.status_code, refused.json()["code"]) == (422, "weights_refused"), refused.text
        assert re.search(OTHER_FAMILY, refused.json()["detail"])
    assert sender.everything() == before
