"""The pictures that a training shows of itself while it runs: the same prompts and seeds each time."""

from __future__ import annotations

from PIL import Image

from flows.diffusion.families.protocol import Components, Family
from flows.diffusion.modes import in_evaluation_mode
from flows.diffusion.sampler import draw_images
from storage.records.jobs.training import TrainingRecipe

SCENES = 2


def sample_prompts(recipe: TrainingRecipe) -> tuple[str, ...]:
    """The subject in the first scenes, and the plain class."""
    scenes = recipe.evaluation_scenes[:SCENES]
    subject = [f"{recipe.instance_prompt} {scene}" for scene in scenes] or [recipe.instance_prompt]
    return (*subject, recipe.class_prompt)


def draw_samples(family: Family, components: Components, recipe: TrainingRecipe) -> list[Image.Image]:
    """A picture of each prompt. Seed 0 each time, so that what changes between samples is the model."""
    prompts = sample_prompts(recipe)
    with in_evaluation_mode(components.modules.values()):
        return draw_images(family, components, prompts, [0] * len(prompts), recipe.sampler)


def sample_name(step: int, number: int) -> str:
    """The file of the picture of a prompt, by its place."""
    return f"sample-{step:06d}-{number}.png"
