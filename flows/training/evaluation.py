"""How good a fine-tune is, in numbers that mean something beside the base's floor and the photos' ceiling.

Subject fidelity is the mean cosine, in the judge's embedding, of pictures in new scenes with the photos. The base
draws the same prompts with the same seeds (the floor), the photos are compared with each other (the ceiling, without
self-pairs). Prompt accuracy is the share of pictures that show the scene asked for. Class drift is how near pictures
of the plain class prompt come to the subject (PRES of Ruiz et al. 2023: lower is better) and how far the noise
prediction for that prompt moved from the base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import torch
from PIL import Image
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family
from flows.training.data import LatentImages, generator_for, pixels_of_all
from flows.training.judges import ImageJudge
from storage.records.jobs.sampled_sets import SamplingRecipe
from storage.records.jobs.training import TrainingRecipe

SCENES = 6
SEEDS_PER_SCENE = 4
CLASS_IMAGES = 8
_DRIFT_TIMESTEPS = 5
_DRIFT_LATENTS = 4


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one fine-tune. A metric is None where it was not measured; `measured_by` says why.

    Cosines lie in [-1, 1], accuracies in [0, 1], drift is in units of squared noise.
    """

    measured_by: str
    scenes: tuple[str, ...]
    images: int
    photos: int
    subject_fidelity: float | None = None
    subject_fidelity_base: float | None = None
    subject_fidelity_photos: float | None = None
    prompt_accuracy: float | None = None
    prompt_accuracy_base: float | None = None
    class_similarity: float | None = None
    class_similarity_base: float | None = None
    class_noise_drift: float | None = None


@dataclass(frozen=True)
class EvaluationImages:
    """What one model drew: pictures of the subject in scenes (scene by scene, each with every seed), and of the class.

    Both are (N, 3, H, W) in [-1, 1].
    """

    subject: Tensor
    of_class: Tensor


def new_scenes(recipe: TrainingRecipe, photos: Tensor, judge: ImageJudge | None) -> tuple[str, ...]:
    """Up to six of the recipe's scenes that no photo shows, as the judge sees them. Without a judge: the first six."""
    if judge is None:
        return recipe.evaluation_scenes[:SCENES]
    known = list(judge.scenes)
    shown = {known[int(row)] for row in judge.scene_probabilities(photos).argmax(1)}
    return tuple(scene for scene in recipe.evaluation_scenes if scene in known and scene not in shown)[:SCENES]


def evaluation_recipe(recipe: TrainingRecipe, scenes: Sequence[str]) -> SamplingRecipe:
    """What base and fine-tuned model both draw: each scene with each seed, then the class prompt.

    Seeds are 0, 1, 2, ..., so that jobs with the same words share the base's floor.
    """
    places = [f"{recipe.instance_prompt} {scene}" for scene in scenes] or [recipe.instance_prompt]
    prompts = tuple(prompt for prompt in places for _ in range(SEEDS_PER_SCENE))
    return SamplingRecipe(
        base_model_hash=recipe.base_model_hash,
        family=recipe.family,
        resolution=recipe.resolution,
        prompts=prompts + (recipe.class_prompt,) * CLASS_IMAGES,
        seeds=tuple(range(SEEDS_PER_SCENE)) * len(places) + tuple(range(CLASS_IMAGES)),
        sampler=recipe.sampler,
        # Fixed: another size of batch rounds differently, and the base's floor would be another set for each.
        batch_size=16,
        threads=recipe.threads,
        dtype=recipe.dtype,
        libraries=recipe.libraries,
        device=recipe.device,
    )


def split_images(images: Sequence[Image.Image], resolution: int) -> EvaluationImages:
    """The pictures of an evaluation recipe, in its order, by what they show."""
    pixels = pixels_of_all(images, resolution)
    return EvaluationImages(pixels[:-CLASS_IMAGES], pixels[-CLASS_IMAGES:])


def measure(
    judge: ImageJudge | None,
    photos: Tensor,
    scenes: Sequence[str],
    base: EvaluationImages,
    tuned: EvaluationImages,
    class_noise_drift: float,
) -> Evaluation:
    """Every metric that can be measured, and why the others could not."""
    unmeasured = Evaluation(
        measured_by="not measured: the base model folder brings no judge",
        scenes=tuple(scenes),
        images=len(tuned.subject),
        photos=len(photos),
        class_noise_drift=class_noise_drift,
    )
    if judge is None:
        return unmeasured
    if not scenes:
        reason = "not measured: the photos show every scene that the base model is evaluated on"
        return msgspec.structs.replace(unmeasured, measured_by=reason)
    reference = judge.embed(photos)
    return msgspec.structs.replace(
        unmeasured,
        measured_by=type(judge).__module__ + "." + type(judge).__name__,
        subject_fidelity=mean_cosine(judge.embed(tuned.subject), reference),
        subject_fidelity_base=mean_cosine(judge.embed(base.subject), reference),
        subject_fidelity_photos=mean_cosine_within(reference),
        prompt_accuracy=scene_accuracy(judge, tuned.subject, scenes),
        prompt_accuracy_base=scene_accuracy(judge, base.subject, scenes),
        class_similarity=mean_cosine(judge.embed(tuned.of_class), reference),
        class_similarity_base=mean_cosine(judge.embed(base.of_class), reference),
    )


def mean_cosine(images: Tensor, reference: Tensor) -> float:
    """Mean cosine over all pairs of rows: (N, D) and (M, D)."""
    return float((_unit(images) @ _unit(reference).T).mean())


def mean_cosine_within(reference: Tensor) -> float | None:
    """Mean cosine over all pairs of different rows of (M, D); None for a single row."""
    count = reference.shape[0]
    if count < 2:
        return None
    cosines = _unit(reference) @ _unit(reference).T
    return float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))


def scene_accuracy(judge: ImageJudge, images: Tensor, scenes: Sequence[str]) -> float:
    """The share of pictures that the judge places in the scene asked for. `images` come scene by scene."""
    known = list(judge.scenes)
    seen = judge.scene_probabilities(images).argmax(1).tolist()
    asked = [known.index(scene) for scene in scenes for _ in range(len(images) // len(scenes))]
    return sum(one == other for one, other in zip(seen, asked, strict=True)) / len(asked)


def class_noise_drift(
    family: Family, base: Components, tuned: Components, class_latents: LatentImages, class_prompt: str
) -> float:
    """Mean squared difference of two models' predictions for the class prompt, on a fixed grid of latents and times."""
    schedule = tuned.noise_schedule
    length = schedule.config.num_train_timesteps
    # Neither end of the schedule: there either hardly any noise is left to predict, or nothing else is there.
    times = torch.linspace(length * 0.05, length * 0.95, _DRIFT_TIMESTEPS).long()
    latents = class_latents.mean[:_DRIFT_LATENTS].repeat(len(times), 1, 1, 1)
    timesteps = times.repeat_interleave(latents.shape[0] // len(times)).to(latents.device)
    # The same noise for every job, so that drifts can be compared.
    noise = torch.randn(latents.shape, generator=generator_for(0, "drift", 0)).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    rows = [0] * latents.shape[0]
    with torch.no_grad():
        before, after = (
            family.predict(parts, noisy, timesteps, family.encode_prompts(parts, [class_prompt]).take(rows))
            for parts in (base, tuned)
        )
    return float((after - before).square().mean())


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.float(), dim=-1)
