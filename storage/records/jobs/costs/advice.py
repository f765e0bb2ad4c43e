"""What to change of a training that needs too much memory: each change with what it saves, by the estimate itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from storage.records.accounts.quotas import GIB, in_units
from storage.records.jobs.choices import TrainingMethod, TrainingOptimizer, TrainingPreset
from storage.records.jobs.costs.memory import MARGIN, MemoryEstimate, estimate_memory
from storage.records.jobs.costs.sizes import ModelSizes
from storage.records.jobs.training import TrainingRecipe

CARD_SHARE = 0.94
"""Of a card's memory what a training gets: the driver and CUDA's own libraries hold the rest."""
_WORTH_IT = 0.02


class MemorySaving(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of a request, as `field: value` pairs, and the bytes of the peak that it saves."""

    change: str
    saved_bytes: int


def savings(sizes: ModelSizes, recipe: TrainingRecipe, memory: MemoryEstimate) -> tuple[MemorySaving, ...]:
    """Changes that make the peak smaller, in the order of what they cost: first those that change no number."""
    found: list[MemorySaving] = []
    for text, fields in _changes(recipe):
        changed = estimate_memory(sizes, msgspec.structs.replace(recipe, **fields))
        # None of the changes is of the photos, which only the first estimate may have known.
        saved = memory.peak - msgspec.structs.replace(changed, encodings=memory.encodings).peak
        if saved > _WORTH_IT * memory.peak:
            found.append(MemorySaving(change=text, saved_bytes=saved))
    return tuple(found)


def savings_in_words(found: tuple[MemorySaving, ...]) -> str:
    """The same as the rest of a sentence."""
    if not found:
        return "Use a smaller base model, or a machine with more memory."
    return "To reduce it: " + "; ".join(f"{one.change} (saves {in_units(one.saved_bytes)})" for one in found) + "."


def cards_that_fit(memory: MemoryEstimate) -> tuple[str, ...]:
    """The cards of presets on which the peak, with the estimate's own error, has room."""
    needed = memory.peak * (1 + MARGIN)
    return tuple(f"{one.card_gib} GB" for one in TrainingPreset if needed <= one.card_gib * GIB * CARD_SHARE)


def _changes(recipe: TrainingRecipe) -> Iterator[tuple[str, dict[str, Any]]]:
    if recipe.prior_loss_weight > 0 and not recipe.split_backward:
        yield "splitBackward: true", {"split_backward": True}
    if recipe.batch_size > 1:
        passes = recipe.accumulation * recipe.batch_size
        yield f"batchSize: 1 with accumulation: {passes}", {"batch_size": 1, "accumulation": passes}
    if not recipe.gradient_checkpointing:
        yield "gradientCheckpointing: true", {"gradient_checkpointing": True}
    if recipe.precision == "fp32":
        yield "precision: bf16", {"precision": "bf16"}
    if recipe.trains_adapter and recipe.frozen_precision == "fp32":
        yield "frozenPrecision: bf16", {"frozen_precision": "bf16"}
    if recipe.optimizer not in (TrainingOptimizer.ADAMW_8BIT, TrainingOptimizer.LION_8BIT):
        yield "optimizer: adamw_8bit", {"optimizer": TrainingOptimizer.ADAMW_8BIT.value}
    if recipe.ema_decay > 0:
        yield "emaDecay: 0", {"ema_decay": 0.0}
    if recipe.text_encoder_learning_rate > 0:
        yield "textEncoderLearningRate: 0", {"text_encoder_learning_rate": 0.0}
    if not recipe.trains_adapter:
        yield "method: lora", {"method": TrainingMethod.LORA.value, "token_learning_rate": 0.0}
