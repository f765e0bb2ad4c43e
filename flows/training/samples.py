"""What a fine-tune shows of itself in the catalogue: the pictures of its subject that it drew to be measured."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from flows.diffusion.sampled_sets import png
from flows.training.work import TrainingWork
from storage.blobs.blurhashes import blurhash_of
from storage.records.catalog.catalog import NewImage
from storage.records.catalog.vocabulary import BrowsingLevel
from storage.records.jobs.sampled_sets import CLASS_IMAGES, SEEDS_PER_SCENE, SamplingRecipe

SAMPLER = "DDIM"


def store_samples(work: TrainingWork, recipe: SamplingRecipe, drawn: Sequence[Image.Image]) -> tuple[NewImage, ...]:
    """Store the subject's pictures among `drawn`, which `recipe` describes in its order: bytes before rows.

    They come seed by seed, so that the first ones show every scene once. Pictures of the plain class are not shown.
    """
    subject = len(recipe.prompts) - CLASS_IMAGES
    order = [place for seed in range(SEEDS_PER_SCENE) for place in range(seed, subject, SEEDS_PER_SCENE)]
    return tuple(_stored(work, recipe, place, drawn[place]) for place in order)


def _stored(work: TrainingWork, recipe: SamplingRecipe, place: int, image: Image.Image) -> NewImage:
    content = png(image)
    blob = work.job.with_retries(lambda: work.stores.blobs.put(content))
    return NewImage(
        sha256=blob.sha256,
        size=blob.size,
        media_type="image/png",
        width=image.width,
        height=image.height,
        blurhash=blurhash_of(image),
        nsfw_level=BrowsingLevel.PG,
        meta=generation_meta(recipe, place, image, work.request.model_name),
    )


def generation_meta(recipe: SamplingRecipe, place: int, image: Image.Image, model_name: str) -> dict[str, object]:
    """How a picture was drawn, in the names that Civitai's clients read."""
    return {
        "prompt": recipe.prompts[place],
        "negativePrompt": "",
        "steps": recipe.sampler.steps,
        "sampler": SAMPLER,
        "cfgScale": recipe.sampler.guidance_scale,
        "seed": recipe.seeds[place],
        "Size": f"{image.width}x{image.height}",
        "Model": model_name,
    }
