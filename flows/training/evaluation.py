"""How good a fine-tune is, in numbers that mean something beside the base's floor and the photos' ceiling.

Subject fidelity is the mean cosine, in the judge's embedding, of pictures in new scenes with the photos. The base
draws the same prompts with the same seeds (the floor), the photos are compared with each other (the ceiling, without
self-pairs). Prompt accuracy is the share of pictures that show the scene asked for, class accuracy that of pictures
which show a thing of the class at all, diversity how far pictures of one prompt lie apart. Class drift is how near
pictures of the plain class prompt come to the subject (PRES of Ruiz et al. 2023: lower is better) and how far the noise
prediction for that prompt, and for prompts that have nothing to do with it, moved from the base's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import msgspec
import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family
from flows.diffusion.memory import share_equal
from flows.runs.liveness import advanced
from flows.training.adapters.layers import carries_adapters, without_adapters
from flows.training.metrics.comparisons import (
    UNRELATED_PROMPTS,
    EvaluationImages,
    cosines,
    diversity,
    interval,
    mean_cosine,
    mean_cosine_within,
)
from flows.training.metrics.judges import ImageJudge
from flows.training.photos.latents import LatentImages
from flows.training.photos.pictures import Picture, Pixels, SquarePixels, measured_in_batches
from flows.training.photos.random_numbers import generator_for
from storage.records.jobs.sampled_sets import CLASS_IMAGES, SCENES, SEEDS_PER_SCENE, SamplingRecipe
from storage.records.jobs.training import TrainingRecipe

_DRIFT_TIMESTEPS = 5
_DRIFT_LATENTS = 4


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """The metrics of one fine-tune. A metric is None where it was not measured; `measured_by` says why.

    Cosines lie in [-1, 1], accuracies in [0, 1], drift is in units of squared noise. Intervals hold the mean with 95 %.
    `standard` has what papers report, by CLIP and DINO, where this machine has them.
    """

    measured_by: str
    scenes: tuple[str, ...]
    images: int
    photos: int
    subject_fidelity: float | None = None
    subject_fidelity_interval: tuple[float, float] | None = None
    subject_fidelity_base: float | None = None
    subject_fidelity_photos: float | None = None
    prompt_accuracy: float | None = None
    prompt_accuracy_interval: tuple[float, float] | None = None
    prompt_accuracy_base: float | None = None
    class_accuracy: float | None = None
    class_accuracy_base: float | None = None
    diversity: float | None = None
    diversity_base: float | None = None
    class_similarity: float | None = None
    class_similarity_base: float | None = None
    class_noise_drift: float | None = None
    unrelated_noise_drift: float | None = None
    standard: dict[str, float] = {}  # msgspec gives every record an empty one of its own


def numbers_of(evaluation: Evaluation) -> dict[str, float]:
    """What was measured, number by number; the ends of NAME_interval are NAME_low and NAME_high, as of `standard`."""
    numbers: dict[str, float] = {}
    for name, value in (msgspec.structs.asdict(evaluation) | evaluation.standard).items():
        if isinstance(value, float):
            numbers[name] = value
        elif name.endswith("_interval") and isinstance(value, tuple):
            of_metric = name.removesuffix("_interval")
            numbers[f"{of_metric}_low"], numbers[f"{of_metric}_high"] = cast(tuple[float, float], value)
    return numbers


@dataclass(frozen=True)
class Drifts:
    """Mean squared differences of two models' noise predictions: for the class prompt, and for unrelated prompts."""

    of_class: float
    unrelated: float


def base_beside(family: Family, folder: Path, tuned: Components, changed: frozenset[str], dtype: str) -> Components:
    """A base model's parts beside a fine-tune's, on the same device: what the comparison needs is only what differs.

    Tensors that are equal are the fine-tune's own, so beside an adapter nothing is loaded; of other models nothing is
    read but the parts that changed. `dtype` is what the base's weights are held in.
    """
    kept = {name: module for name, module in tuned.modules.items() if name not in changed}
    adapted = {name: tuned.modules[name] for name in changed if carries_adapters(tuned.modules[name])}
    kept |= {name: without_adapters(module) for name, module in adapted.items()}
    if kept.keys() == tuned.modules.keys():
        return tuned.with_modules(kept)
    base = family.load(folder, kept.keys(), dtype)
    for name in tuned.modules.keys() - kept.keys():
        share_equal(base.modules[name], tuned.modules[name])
    return base.with_modules(kept).to(tuned.device)


def new_scenes(recipe: TrainingRecipe, photos: Pixels, judge: ImageJudge | None) -> tuple[str, ...]:
    """Up to six of the recipe's scenes that no photo shows, as the judge sees them. Without a judge: the first six.

    A photo shows a scene that is likelier than everything else together.
    """
    if judge is None:
        return recipe.evaluation_scenes[:SCENES]
    known = list(judge.scenes)
    shown = {
        known[int(place)] for place in (measured_in_batches(judge.scene_probabilities, photos) > 0.5).nonzero()[:, 1]
    }
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
        dtype=recipe.held_in,
        libraries=recipe.libraries,
        device=recipe.device,
    )


def split_images(images: Sequence[Picture], resolution: int) -> EvaluationImages:
    """The pictures of an evaluation recipe, in its order, by what they show."""
    subject, of_class = images[:-CLASS_IMAGES], images[-CLASS_IMAGES:]
    return EvaluationImages(SquarePixels(subject, resolution), SquarePixels(of_class, resolution))


def measure(
    judge: ImageJudge | None,
    photos: Pixels,
    scenes: Sequence[str],
    class_word: str,
    base: EvaluationImages,
    tuned: EvaluationImages,
    drifts: Drifts,
) -> Evaluation:
    """Every metric that can be measured, and why the others could not."""
    unmeasured = Evaluation(
        measured_by="not measured: the base model folder brings no judge",
        scenes=tuple(scenes),
        images=len(tuned.subject),
        photos=len(photos),
        class_noise_drift=drifts.of_class,
        unrelated_noise_drift=drifts.unrelated,
    )
    if judge is None:
        return unmeasured
    if not scenes:
        reason = "not measured: the photos show every scene that the base model is evaluated on"
        return msgspec.structs.replace(unmeasured, measured_by=reason)
    reference, subject, base_subject = (
        measured_in_batches(judge.embed, images) for images in (photos, tuned.subject, base.subject)
    )
    asked = [scene for scene in scenes for _ in range(len(tuned.subject) // len(scenes))]
    right = shows(measured_in_batches(judge.scene_probabilities, tuned.subject), judge.scenes, asked)
    base_right = shows(measured_in_batches(judge.scene_probabilities, base.subject), judge.scenes, asked)
    return msgspec.structs.replace(
        unmeasured,
        measured_by=type(judge).__module__ + "." + type(judge).__name__,
        subject_fidelity=mean_cosine(subject, reference),
        subject_fidelity_interval=interval(cosines(subject, reference).mean(1)),
        subject_fidelity_base=mean_cosine(base_subject, reference),
        subject_fidelity_photos=mean_cosine_within(reference),
        prompt_accuracy=float(right.mean()),
        prompt_accuracy_interval=interval(right),
        prompt_accuracy_base=float(base_right.mean()),
        class_accuracy=class_accuracy(judge, tuned.subject, class_word),
        class_accuracy_base=class_accuracy(judge, base.subject, class_word),
        diversity=diversity(subject, asked),
        diversity_base=diversity(base_subject, asked),
        class_similarity=mean_cosine(measured_in_batches(judge.embed, tuned.of_class), reference),
        class_similarity_base=mean_cosine(measured_in_batches(judge.embed, base.of_class), reference),
    )


def without_undefined(evaluation: Evaluation) -> tuple[Evaluation, list[str]]:
    """The evaluation with None for each metric that came out as no number, and their names.

    A base or a judge whose activations overflow gives such, and neither JSON nor Postgres has a word for them.
    """
    undefined = {name: None for name, value in msgspec.structs.asdict(evaluation).items() if not _is_defined(value)}
    standard = {name: value for name, value in evaluation.standard.items() if _is_defined(value)}
    names = [*undefined, *(evaluation.standard.keys() - standard.keys())]
    return msgspec.structs.replace(evaluation, **undefined, standard=standard), sorted(names)


def _is_defined(value: object) -> bool:
    """Whether a metric is a number, or an interval of two; what is none by its type is left alone."""
    parts = cast(tuple[object, ...], value) if isinstance(value, tuple) else (value,)
    return all(math.isfinite(part) for part in parts if isinstance(part, float))


def shows(probabilities: Tensor, known: Sequence[str], asked: Sequence[str]) -> Tensor:
    """1.0 for each picture whose likeliest of the `known` is what was asked for, else 0.0: (N, known) to (N,)."""
    wanted = torch.tensor([list(known).index(one) for one in asked], device=probabilities.device)
    return (probabilities.argmax(1) == wanted).float()


def class_accuracy(judge: ImageJudge, images: Pixels, class_word: str) -> float | None:
    """The share of pictures that the judge takes for a thing of the class; None if it does not know the class."""
    if class_word not in judge.classes:
        return None
    found = measured_in_batches(judge.class_probabilities, images)
    return float(shows(found, judge.classes, [class_word] * len(images)).mean())


def noise_drifts(
    family: Family, base: Components, tuned: Components, class_latents: LatentImages, class_prompt: str
) -> Drifts:
    """How far the predictions of a fine-tune moved for the class, and for what has nothing to do with it."""
    unrelated = [noise_drift(family, base, tuned, class_latents, prompt) for prompt in UNRELATED_PROMPTS]
    return Drifts(
        noise_drift(family, base, tuned, class_latents, class_prompt), sum(unrelated) / len(UNRELATED_PROMPTS)
    )


def noise_drift(family: Family, base: Components, tuned: Components, class_latents: LatentImages, prompt: str) -> float:
    """Mean squared difference of two models' predictions for a prompt, on a fixed grid of latents and timesteps.

    One row at a time: all of them in one call take a CPU longer than a job may be silent, and a card more memory than
    the steps have needed.
    """
    schedule = tuned.noise_schedule
    length = schedule.config.num_train_timesteps
    # Neither end of the schedule: there either hardly any noise is left to predict, or nothing else is there.
    times = torch.linspace(length * 0.05, length * 0.95, _DRIFT_TIMESTEPS).long()
    latents = class_latents.mean[:_DRIFT_LATENTS].repeat(len(times), 1, 1, 1)
    timesteps = times.repeat_interleave(latents.shape[0] // len(times)).to(latents.device)
    # The same noise for every job, so that drifts can be compared.
    noise = torch.randn(latents.shape, generator=generator_for(0, "drift", 0)).to(latents.device)
    noisy = schedule.add_noise(latents, noise, timesteps)
    squares: list[float] = []
    with torch.no_grad():
        conditionings = [(parts, family.encode_prompts(parts, [prompt])) for parts in (base, tuned)]
        advanced()
        for row in range(latents.shape[0]):
            one = slice(row, row + 1)
            predicted: list[Tensor] = []
            for parts, conditioning in conditionings:
                predicted.append(family.predict(parts, noisy[one], timesteps[one], conditioning))
                advanced()
            before, after = predicted
            squares.append(float((after - before).square().mean()))
    return sum(squares) / len(squares)
