"""How much room a training job needs on disk: checkpoints, what it exports, and the images that it draws."""

from __future__ import annotations

import msgspec

from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.costs.disk_needs import ELEMENT_BYTES, checkpoints_at_once
from storage.records.jobs.costs.memory import MemoryEstimate
from storage.records.jobs.costs.optimizer_states import FLOAT
from storage.records.jobs.costs.sizes import ModelSizes
from storage.records.jobs.training import TrainingRecipe

PNG_BYTES_OF_A_PIXEL = 1.6
"""Of a photograph as PNG; what is drawn and flat takes less."""
EVALUATION_IMAGES, SAMPLES_AT_ONCE = 64, 3
"""What the base and the fine-tune draw for the evaluation together, and what a training shows at a time."""


class DiskEstimate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes of the blob store and the work folder. `checkpoint` is of one; `checkpoints` are those there at once, one
    more than a job keeps, since the next is written before the oldest goes."""

    checkpoint: int
    checkpoints: int
    export: int
    images: int

    @property
    def peak(self) -> int:
        """All together, the export in its work folder and in the store."""
        return self.checkpoints + 2 * self.export + self.images


def estimate_disk(sizes: ModelSizes, recipe: TrainingRecipe, memory: MemoryEstimate) -> DiskEstimate:
    """What a job of this recipe writes."""
    checkpoint = FLOAT * memory.trained_parameters + memory.optimizer + memory.ema
    drawn = EVALUATION_IMAGES + SAMPLES_AT_ONCE * (recipe.steps // recipe.sample_every)
    drawn += recipe.regularization_count if recipe.prior_loss_weight > 0 else 0
    return DiskEstimate(
        checkpoint=checkpoint,
        checkpoints=checkpoint * checkpoints_at_once(recipe),
        export=_export(sizes, recipe, memory),
        images=int(drawn * recipe.resolution**2 * PNG_BYTES_OF_A_PIXEL),
    )


def _export(sizes: ModelSizes, recipe: TrainingRecipe, memory: MemoryEstimate) -> int:
    each = ELEMENT_BYTES.get(recipe.export_dtype)
    if recipe.method == TrainingMethod.LORA.value:
        # In two files, of kohya's keys and of diffusers'.
        return 2 * memory.trained_parameters * (each or FLOAT)
    changed = ["unet", *(sizes.texts if recipe.trains_text else ())]
    if each is None:
        # Parts that did not change are the base's own files.
        return sizes.stored + sum(sizes.stored_bytes[part] for part in changed)
    return 2 * each * memory.total_parameters
