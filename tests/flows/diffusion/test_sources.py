"""Pictures to go on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flows.diffusion.families.protocol import Components
from flows.diffusion.sources import mask_latents, pasted, resized, source_latents
from flows.starter.networks import write_tiny_model
from tests.flows.training.tiny import FAMILY


@pytest.fixture(scope="module")
def components(tmp_path_factory: pytest.TempPathFactory) -> Components:
    torch.set_num_threads(1)
    folder: Path = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return FAMILY.load(folder)


def noise_picture(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_a_source_becomes_the_mean_of_what_the_vae_makes_of_it(components: Components) -> None:
    source = noise_picture(64, 48)
    pixels = torch.from_numpy(np.asarray(source, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)[None]

    with torch.no_grad():
        latents = source_latents(FAMILY, components, source, 64, 48)
        mean, _ = FAMILY.encode_images(components, pixels)

    assert latents.shape == (1, 4, 12, 16)
    assert torch.equal(latents, mean)


def test_a_latent_is_drawn_again_where_any_of_its_pixels_is_white(components: Components) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.putpixel((9, 0), 255)

    latents = mask_latents(components, mask, 64, 64)

    assert latents.shape == (1, 1, 16, 16)
    assert latents.nonzero().tolist() == [[0, 0, 0, 2]]


def test_outside_the_mask_no_pixel_changes() -> None:
    source, drawn = noise_picture(64, 64), Image.new("RGB", (64, 64), (255, 0, 0))
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))

    made = np.asarray(pasted(drawn, source, mask))

    assert np.array_equal(made[:, :32], np.asarray(source)[:, :32])
    assert (made[:, 32:] == (255, 0, 0)).all()


def test_a_picture_of_that_size_is_left_as_it_is() -> None:
    source = noise_picture(20, 30)

    assert np.array_equal(np.asarray(resized(source, 20, 30)), np.asarray(source))
    assert resized(source.convert("RGBA"), 40, 60).size == (40, 60)
