"""A preview looks like the picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from deployments.local.seed import STARTER_FOLDER
from flows.diffusion.families.protocol import Components
from flows.diffusion.previews import fit_colours, preview
from flows.diffusion.sampler import denoise, first_latents, guiding, to_image
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.training.tiny import FAMILY, loaded


@pytest.fixture(scope="module")
def starter() -> Components:
    torch.set_num_threads(1)
    return loaded(STARTER_FOLDER)


def test_a_preview_has_the_colours_of_the_picture(starter: Components) -> None:
    sampler = SamplerSettings(steps=6, guidance_scale=3.0)
    with torch.no_grad():
        conditioning = guiding(FAMILY, starter, ["a red mug on the beach"], sampler, "")
        latents = denoise(FAMILY, starter, conditioning, first_latents(starter, [5]), sampler)
        picture = to_image(FAMILY.decode_latents(starter, latents)[0])

    small = preview(fit_colours(FAMILY, starter), latents)

    assert small.size == (16, 16)
    shrunk = np.asarray(picture.resize((16, 16), Image.Resampling.BOX), dtype=float)
    # Of 255 levels; a grey picture is 60 away from it.
    assert np.abs(np.asarray(small, dtype=float) - shrunk).mean() < 30


def test_the_map_is_the_same_each_time(starter: Components) -> None:
    assert torch.equal(fit_colours(FAMILY, starter), fit_colours(FAMILY, starter))
