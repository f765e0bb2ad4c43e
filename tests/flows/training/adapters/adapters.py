"""What the tests of adapters share: recipes, a trained adapter, a drawing by diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from numpy.typing import NDArray

from flows.diffusion.families.protocol import Components
from flows.training.methods.lookup import method_named
from flows.training.version_files import VersionFiles
from storage.records.jobs.training import TrainingRecipe
from tests.flows.diffusion.reference import drawn_by
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train

PROMPT = "a photo of a sks mug"


def lora_recipe(**changes: Any) -> TrainingRecipe:
    """A few strong steps of an adapter of rank 4 and alpha 10 on UNet and text encoder."""
    fields: dict[str, Any] = {
        "method": "lora",
        "learning_rate": 1e-2,
        "text_encoder_learning_rate": 1e-2,
        "token_learning_rate": 0.0,
        "prior_loss_weight": 0.0,
        "steps": 4,
        "checkpoint_every": 100,
        "lora_rank": 4,
        "lora_alpha": 10.0,
    }
    return recipe(**{**fields, **changes})


def trained_adapter(base: Path, work: Path, wanted: TrainingRecipe) -> tuple[Components, VersionFiles]:
    """Components with a trained adapter beside their weights, and its files."""
    components, changed = train(base, work, wanted, KeptCheckpoints(work / "kept"))
    files = method_named("lora").export(FAMILY, components, changed, wanted, wanted.fingerprint(), work / "export")
    return components, files


def pipeline_of(base: Path) -> StableDiffusionPipeline:
    """Diffusers' own pipeline of a base."""
    return StableDiffusionPipeline.from_pretrained(str(base), local_files_only=True)


def with_components(base: Path, components: Components) -> StableDiffusionPipeline:
    """The pipeline with our own parts in it."""
    pipeline = pipeline_of(base)
    pipeline.unet, pipeline.text_encoder = components.unet, components.text_encoder
    return pipeline


def drawn(pipeline: StableDiffusionPipeline) -> NDArray[np.float32]:
    """A seeded image, its values from 0 to 1."""
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(3)
    made = drawn_by(pipeline, PROMPT, num_inference_steps=2, generator=generator, output_type="np", height=64, width=64)
    return made[0]
