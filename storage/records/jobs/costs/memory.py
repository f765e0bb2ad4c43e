"""How much memory a training needs, its steps and what it draws, part by part, before any weight is loaded.

Weights, gradients, the optimizer's state and averages are counted from the shapes of the tensors, so they are exact.
Activations are counted by layers (activations.py). What docs/reference/training.md says of errors was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from storage.records.jobs.choices import TrainingOptimizer
from storage.records.jobs.costs.activations import HALF, drawn_bytes, kept_by_stage, kept_bytes
from storage.records.jobs.costs.optimizer_states import FLOAT, state_bytes, step_bytes
from storage.records.jobs.costs.sizes import TEXT_TOKENS, ModelSizes, Shape, count, trained_shapes
from storage.records.jobs.training import TrainingRecipe

MARGIN = 0.15
"""The part by which a measured peak may lie beside the estimate; see docs/reference/training.md."""
CPU_PROCESS = 600_000_000
"""Bytes that torch and its libraries take on a CPU beside what is counted here, for any size of model."""
DRAWN_TOGETHER = 2
"""Images that are drawn at a time where memory is short; one that is alone would be rounded otherwise."""
DECODED = 3
_LATENT_CHANNELS = 4
TEXT_WIDTHS = 24
"""Vectors that a layer of a text encoder keeps for each token: attention, and a feed-forward part of four widths."""


class MemoryEstimate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes on the device (card, or the machine's memory) at the peak of the steps, by what they are for.

    `encodings` are the latents and encoded prompts that stay for all steps. `step` is what the optimizer's own step
    needs when the activations are gone, `drawing` what the fewest images at a time need between steps, when there are
    no gradients: `peak` counts the largest of the three.
    `not_concurrent` is what of activations and gradients never exists together: the backward pass frees the ones while
    it makes the others, unless gradients of an earlier pass are kept.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    ema: int
    half_precision_copies: int
    encodings: int
    activations: int
    not_concurrent: int
    step: int
    drawing: int
    trained_parameters: int
    total_parameters: int

    @property
    def peak(self) -> int:
        """All together at the worst moment."""
        lasting = self.weights + self.adapters + self.optimizer + self.ema + self.encodings
        steps = self.gradients + max(self.activations + self.half_precision_copies - self.not_concurrent, self.step)
        return lasting + max(steps, self.drawing)


def estimate_memory(sizes: ModelSizes, recipe: TrainingRecipe, photos: int = 0, prompts: int = 0) -> MemoryEstimate:
    """What the recipe's steps need on a base of these sizes, with so many photos of so many different prompts."""
    shapes = trained_shapes(sizes, recipe)
    trained = count(shapes)
    total = sum(sizes.parameters(part) for part in sizes.shapes)
    ema = FLOAT * trained if recipe.ema_decay > 0 else 0
    if recipe.optimizer == TrainingOptimizer.ADAMW_SCHEDULE_FREE.value:
        ema = 0  # its copy stands in the room of the gradients
    return MemoryEstimate(
        weights=_held_bytes(sizes, recipe),
        adapters=FLOAT * trained if recipe.trains_adapter else 0,
        gradients=FLOAT * trained,
        optimizer=state_bytes(recipe.optimizer, shapes.values()),
        ema=ema,
        half_precision_copies=_half_precision_copies(sizes, recipe, shapes),
        encodings=_encodings(sizes, recipe, photos, prompts),
        activations=(activations := _activations(sizes, recipe)),
        not_concurrent=_not_concurrent(sizes, recipe, shapes, activations),
        step=step_bytes(recipe.optimizer, trained),
        drawing=_drawing(sizes, recipe),
        trained_parameters=trained,
        total_parameters=total,
    )


def rows_of_a_pass(recipe: TrainingRecipe) -> int:
    """Images in one forward and backward pass."""
    together = 2 if recipe.prior_loss_weight > 0 and not recipe.split_backward else 1
    return recipe.batch_size * together


def _not_concurrent(sizes: ModelSizes, recipe: TrainingRecipe, shapes: Mapping[str, Shape], activations: int) -> int:
    """By the UNet's stages, from the last to the first: before each the activations up to it are there, and behind it
    the gradients from it on."""
    passes = recipe.accumulation * (2 if recipe.split_backward and recipe.prior_loss_weight > 0 else 1)
    if passes > 1 or recipe.trains_adapter:
        return 0
    mixed, checkpointed = recipe.precision != "fp32", recipe.gradient_checkpointing
    stages = kept_by_stage(sizes.unet, checkpointed=checkpointed, mixed=mixed)
    images = _positions(sizes, recipe) * rows_of_a_pass(recipe)
    gradients = dict.fromkeys(stages, 0)
    for name, shape in shapes.items():
        stage = next((one for one in stages if name.startswith(f"unet.{one}")), "")
        # What is in no stage, a text encoder among it, gets its gradient last.
        gradients[stage] = gradients.get(stage, 0) + FLOAT * math.prod(shape)
    made, worst = 0.0, 0.0
    left = float(activations)
    for stage in reversed(stages):
        made += gradients[stage]
        worst = max(worst, left + made)
        left -= stages[stage] * images
    worst = max(worst, left + made + gradients.get("", 0))
    return max(0, int(activations + FLOAT * count(shapes) - worst))


def _encodings(sizes: ModelSizes, recipe: TrainingRecipe, photos: int, prompts: int) -> int:
    """Mean and deviation of each latent, of every crop and flip of a photo and of each class image once, and what the
    text encoders make of each prompt, unless they train."""
    views = (recipe.cached_crops if recipe.random_crop else 1) * (2 if recipe.random_flip else 1)
    class_images = recipe.regularization_count if recipe.prior_loss_weight > 0 else 0
    _, channels, *_ = sizes.shapes["unet"].get("conv_in.weight", (0, _LATENT_CHANNELS))
    latents = 2 * channels * _positions(sizes, recipe) * (photos * views + class_images)
    widths = 0 if recipe.trains_text else sum(one.width for one in sizes.texts.values())
    return FLOAT * (latents + prompts * TEXT_TOKENS * widths)


def _held_bytes(sizes: ModelSizes, recipe: TrainingRecipe) -> int:
    """The base's weights: 4 bytes a number, or 2 of UNet and text encoders where they are held in 16 bits; norms are
    float32 always."""
    half = recipe.frozen_precision != "fp32"
    return sum(
        math.prod(shape) * (HALF if half and part != "vae" and not _is_norm(name) else FLOAT)
        for part, shapes in sizes.shapes.items()
        for name, shape in shapes.items()
    )


def _largest_cast(sizes: ModelSizes, recipe: TrainingRecipe) -> int:
    """Of the UNet's layers that are held in 16 bits the largest one in float32; 0 where none is."""
    if recipe.frozen_precision == "fp32":
        return 0
    return FLOAT * max(math.prod(shape) for shape in sizes.shapes["unet"].values())


def _is_norm(name: str) -> bool:
    return "norm" in name.rpartition(".")[0].rpartition(".")[2]


def _positions(sizes: ModelSizes, recipe: TrainingRecipe) -> int:
    return (recipe.resolution // sizes.vae_factor) ** 2


def _half_precision_copies(sizes: ModelSizes, recipe: TrainingRecipe, shapes: Mapping[str, Shape]) -> int:
    """Copies of weights in 16 bits: of what trains for the whole pass, of what is frozen while activations are kept.

    A frozen weight's copy is kept where gradients pass through it: in every part that something trains in or before. Of
    weights that are held in 16 bits one layer's is made at a time, in float32.
    """
    held = recipe.frozen_precision != "fp32"
    if recipe.precision == "fp32":
        return _largest_cast(sizes, recipe)
    frozen = 0
    if not recipe.gradient_checkpointing and not held:
        through = sum(sizes.parameters(part) for part in ("unet", *(sizes.texts if recipe.trains_text else ())))
        own = {name: one for name, one in shapes.items() if not name.startswith("identifier.")}
        frozen = through - (0 if recipe.trains_adapter else count(own))
    return HALF * (count(shapes) + frozen)


def _drawing(sizes: ModelSizes, recipe: TrainingRecipe) -> int:
    """Class images, samples and evaluation are drawn in float32, with guidance two rows an image, and decoded one by
    one: a decoder has three tensors of its input's width at full size at once."""
    rows = DRAWN_TOGETHER * 2 * drawn_bytes(sizes.unet) * _positions(sizes, recipe) + _largest_cast(sizes, recipe)
    return int(max(rows, DECODED * FLOAT * sizes.decoder_width * recipe.resolution**2))


def _activations(sizes: ModelSizes, recipe: TrainingRecipe) -> int:
    positions = _positions(sizes, recipe)
    mixed, checkpointed = recipe.precision != "fp32", recipe.gradient_checkpointing
    unet = kept_bytes(sizes.unet, checkpointed=checkpointed, mixed=mixed) * positions * rows_of_a_pass(recipe)
    text = 0
    if recipe.trains_text:
        layers = sum(one.layers * one.width for one in sizes.texts.values())
        # Each prompt once: the class's, and one of each photo of the batch.
        text = layers * TEXT_TOKENS * TEXT_WIDTHS * FLOAT * rows_of_a_pass(recipe)
        text //= 8 if checkpointed else 1
    return int(unet) + text
