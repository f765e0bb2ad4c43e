from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from flows.diffusion.families.protocol import Components
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import denoise, draw_images, first_latents, guiding, to_image
from flows.starter.networks import write_tiny_model
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.diffusion.reference import drawn_by
from tests.flows.training.tiny import FAMILY
from tests.warm import run_warm

SAMPLER = SamplerSettings(steps=4, guidance_scale=3.0)
PROMPTS = ["a photo of a mug", "a photo of a car", "a photo of a mug"]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_model(folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def components(tiny_model: Path) -> Components:
    torch.set_num_threads(1)
    return FAMILY.load(tiny_model)


def drawn(
    components: Components,
    prompts: list[str],
    seeds: list[int],
    sampler: SamplerSettings = SAMPLER,
    negative_prompt: str = "",
) -> torch.Tensor:
    """The latents of one batch, as `draw_images` makes them."""
    with torch.no_grad():
        conditioning = guiding(FAMILY, components, prompts, sampler, negative_prompt)
        return denoise(FAMILY, components, conditioning, first_latents(components, seeds), sampler)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_latents_equal_those_of_the_diffusers_pipeline(guidance: float, components: Components, tiny_model: Path):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    theirs = drawn_by(
        pipeline,
        PROMPTS,
        latents=first_latents(components, [1, 2, 3]),
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="latent",
    )
    ours = drawn(components, PROMPTS, [1, 2, 3], SamplerSettings(steps=4, guidance_scale=guidance))
    assert torch.allclose(ours, theirs, atol=1e-4)


def test_pixels_are_rounded_to_the_nearest_level_and_clipped():
    levels = torch.tensor([-1.5, -1.0, 0.002, 1.0, 1.5]).expand(3, 1, 5)
    assert np.asarray(to_image(levels))[0].tolist() == [[level] * 3 for level in (0, 0, 128, 255, 255)]


def test_an_image_does_not_depend_on_its_batch(components: Components):
    together, alone = drawn(components, PROMPTS, [1, 2, 3]), drawn(components, PROMPTS[1:2], [2])
    assert torch.allclose(together[1:2], alone, atol=1e-4)


def test_prompt_seed_and_negative_prompt_each_matter(components: Components):
    [one] = drawn(components, ["a photo of a mug"], [1])
    assert not torch.allclose(one, drawn(components, ["a photo of a mug"], [2])[0], atol=1e-2)
    assert not torch.equal(one, drawn(components, ["a photo of a car"], [1])[0])
    avoiding = drawn(components, ["a photo of a mug"], [1], negative_prompt="a photo of a car")
    assert not torch.equal(one, avoiding[0])


def test_drawing_leaves_the_global_generator_alone(components: Components):
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    draw_images(FAMILY, components, PROMPTS, [1, 2, 3], SAMPLER)
    assert torch.equal(torch.rand(2), expected)


ELSEWHERE = """
import hashlib, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from flows.diffusion.sampler import draw_images
from flows.diffusion.sampled_sets import png
from tests.flows.diffusion.test_sampler import FAMILY, PROMPTS, SAMPLER
images = draw_images(FAMILY, FAMILY.load(Path(sys.argv[1])), PROMPTS, [1, 2, 3], SAMPLER)
print(hashlib.sha256(b"".join(map(png, images))).hexdigest())
"""


def test_an_equal_batch_has_equal_bytes_in_another_process(components: Components, tiny_model: Path):
    here = b"".join(map(png, draw_images(FAMILY, components, PROMPTS, [1, 2, 3], SAMPLER)))
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    there = run_warm(ELSEWHERE, str(tiny_model), environment=environment)
    assert there.returncode == 0, there.stderr
    assert there.stdout.split()[-1] == hashlib.sha256(here).hexdigest()
