"""The room on disks that a training job needs at most: for an estimate, before its first step, and before each write.

The cache of encodings is no part of it: it has a limit of its own, and takes nothing where little room is left. Held
against what jobs write in tests/flows/training/checkpointing/written.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import msgspec

from storage.records.accounts.quotas import MIB, in_units
from storage.records.jobs.choices import TrainingMethod, TrainingOptimizer
from storage.records.jobs.costs.optimizer_states import FLOAT, state_bytes
from storage.records.jobs.costs.sizes import ModelSizes, Shape, count, trained_shapes
from storage.records.jobs.sampled_sets import CLASS_IMAGES, SCENES, SEEDS_PER_SCENE
from storage.records.jobs.training import TrainingRecipe

ELEMENT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
"""Of one exported weight, by a request's `exportDtype`."""
PNG_BYTES_OF_A_PIXEL = 3.1
"""Of a picture that nothing compresses, such as noise; of a photograph it is about 1.6."""
SAMPLES_AT_ONCE = 3
VALIDATION_IMAGES = 7
"""Class images and those of unrelated prompts that a validation loss is measured on."""
_GRID_BYTES = 3 * MIB
"""Of the evaluation's grid, whose cells have 192 pixels a side whatever the base's images have."""
_IN_HEADER = 320
"""Bytes that a tensor takes in the header of a file: its name, its shape, its place."""
_STATE_TENSORS = 6
"""Of one weight in a checkpoint: itself, its average, and what an optimizer keeps of it, counters among it."""
_QUANTISATION_TABLES = 2 * 256 * FLOAT
_METRICS_OF_A_STEP = 6 * 1024
"""In parts, and in the whole document, which is written after each stage that follows."""
_WORTH_IT = 0.02


class DiskEstimate(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Bytes that a job has on disks at most.

    `checkpoint` is of one, `checkpoints` of all that are there at once, the one being written among them,
    `kept_checkpoints` of those that are there while the result is exported. `export` is what the result adds to the
    blob store, `export_copies` what it takes in the work folder, where what did not change lies too. `class_images` are
    shared with other jobs and may be there already; `images` are samples and what the evaluation draws; `records` are
    metrics.
    """

    checkpoint: int
    checkpoints: int
    kept_checkpoints: int
    export: int
    export_copies: int
    class_images: int
    images: int
    records: int

    @property
    def in_store(self) -> int:
        """The most that the blob store gets."""
        return self._lasting + max(self.checkpoints, self.kept_checkpoints + self.export)

    @property
    def in_work_folder(self) -> int:
        """The most that lies in the work folder, where that is on another disk than the store."""
        return max(self.checkpoint, self.export_copies)

    @property
    def peak(self) -> int:
        """Both on one disk, where a checkpoint is linked and takes its room once, and an export is copied."""
        return self._lasting + max(self.checkpoints, self.kept_checkpoints + self.export_copies + self.export)

    @property
    def _lasting(self) -> int:
        return self.class_images + self.images + self.records

    def __str__(self) -> str:
        """What the bytes are for, for a person."""
        number = self.checkpoints // self.checkpoint
        many, images = "checkpoint" if number == 1 else "checkpoints", in_units(self.class_images + self.images)
        return f"{number} {many} of {in_units(self.checkpoint)}, {in_units(self.export)} of results, {images} of images"


def estimate_disk(sizes: ModelSizes, recipe: TrainingRecipe, stored: Collection[int] = ()) -> DiskEstimate:
    """What a job of this recipe has on disks. `stored`: the steps of the checkpoints that it has already, with the
    samples of the steps before the newest; only those that are still to be drawn are counted."""
    shapes = trained_shapes(sizes, recipe)
    checkpoint = checkpoint_bytes(shapes, recipe)
    most, kept = checkpoint_counts(recipe, stored)
    export, copies = _export(sizes, recipe, shapes)
    image = int(recipe.resolution**2 * PNG_BYTES_OF_A_PIXEL) + 1024
    class_images = recipe.regularization_count if recipe.prior_loss_weight > 0 else 0
    class_images += VALIDATION_IMAGES if recipe.validation_every > 0 else 0
    return DiskEstimate(
        checkpoint=checkpoint,
        checkpoints=most * checkpoint,
        kept_checkpoints=kept * checkpoint,
        export=export,
        export_copies=copies,
        class_images=class_images * image,
        images=_images(recipe, max(stored, default=0)) * image + _GRID_BYTES,
        # All of them after a resume too: the whole document is written again.
        records=MIB + _METRICS_OF_A_STEP * recipe.last_step,
    )


def checkpoint_bytes(shapes: Mapping[str, Shape], recipe: TrainingRecipe) -> int:
    """Bytes of one checkpoint of a recipe that trains tensors of these shapes, its header included."""
    whole = FLOAT * count(shapes) * (2 if recipe.ema_decay > 0 else 1) + state_bytes(recipe.optimizer, shapes.values())
    each = _STATE_TENSORS * (_IN_HEADER + FLOAT)
    if recipe.optimizer in (TrainingOptimizer.ADAMW_8BIT, TrainingOptimizer.LION_8BIT):
        each += _QUANTISATION_TABLES
    return whole + each * len(shapes) + MIB // 16


def checkpoint_counts(recipe: TrainingRecipe, stored: Collection[int] = ()) -> tuple[int, int]:
    """How many checkpoints there are at most, the one being written among them, and how many when the last is there.

    A stop adds one that is not counted: it is written only if there is room.
    """
    begun, every, last = max(stored, default=0), recipe.checkpoint_every, recipe.last_step
    due = [*range(begun // every * every + every, last, every), *((last,) if begun < last else ())]
    newest, staying, most = deque(sorted(stored)), 0, len(stored)
    for step in due:
        newest.append(step)
        most = max(most, len(newest) + staying)
        while len(newest) > recipe.keep_checkpoints:
            oldest = newest.popleft()
            staying += bool(recipe.keep_every) and oldest % recipe.keep_every == 0
    return most, len(newest) + staying


def less_to_write(sizes: ModelSizes, recipe: TrainingRecipe) -> str:
    """Changes of a request that need less room, each with what it saves; empty where there is none."""
    whole = estimate_disk(sizes, recipe).peak
    found: list[str] = []
    for text, fields in _changes(recipe):
        saved = whole - estimate_disk(sizes, msgspec.structs.replace(recipe, **fields)).peak
        if saved > _WORTH_IT * whole:
            found.append(f"{text} (saves {in_units(saved)})")
    return "; ".join(found)


def smaller_checkpoints(recipe: TrainingRecipe) -> str:
    """Changes of a request that make a checkpoint smaller; empty where there is none."""
    smaller = ("optimizer", "ema_decay", "method")
    return "; ".join(text for text, fields in _changes(recipe) if set(smaller) & set(fields))


def _images(recipe: TrainingRecipe, begun: int) -> int:
    """Pictures by the base and by the fine-tune for the evaluation, and samples, of the last step too.

    Those of step `begun` may be missing: its checkpoint is written before they are drawn.
    """
    scenes = min(SCENES, max(1, len(recipe.evaluation_scenes)))
    evaluation = 2 * scenes * SEEDS_PER_SCENE + CLASS_IMAGES
    last, every = recipe.last_step, recipe.sample_every
    drawn = max(min(begun, last) - 1, 0) // every
    return evaluation + SAMPLES_AT_ONCE * (-(-last // every) - drawn)


def _export(sizes: ModelSizes, recipe: TrainingRecipe, shapes: Mapping[str, Shape]) -> tuple[int, int]:
    """What the result adds to the blob store, and what it takes in the work folder."""
    each = ELEMENT_BYTES.get(recipe.export_dtype)
    if recipe.trains_adapter:
        # In two files, of kohya's keys and of diffusers'. kohya's has a number more for each layer.
        files = 2 * (count(shapes) * (each or FLOAT) + len(shapes) * (_IN_HEADER + FLOAT) * 2) + MIB // 4
        return files, files
    tensors = sum(len(part) for part in sizes.shapes.values())
    headers = 2 * tensors * _IN_HEADER + MIB // 4
    if each is not None:
        both = 2 * each * sum(sizes.parameters(part) for part in sizes.shapes) + headers
        return both, both + sizes.other_bytes
    # Parts that did not change are the base's own files, which the store has.
    changed = ["unet", *(sizes.texts if recipe.trains_text else ())]
    added = sizes.stored + sum(sizes.stored_bytes[part] for part in changed) + headers
    return added, 2 * sizes.stored + sizes.other_bytes + headers


def _changes(recipe: TrainingRecipe) -> Iterator[tuple[str, dict[str, Any]]]:
    if recipe.keep_every:
        yield "keepEvery: 0", {"keep_every": 0}
    if recipe.keep_checkpoints > 1:
        yield "keepCheckpoints: 1", {"keep_checkpoints": 1}
    if recipe.optimizer not in (TrainingOptimizer.ADAMW_8BIT, TrainingOptimizer.LION_8BIT):
        yield "optimizer: adamw_8bit", {"optimizer": TrainingOptimizer.ADAMW_8BIT.value}
    if recipe.ema_decay > 0:
        yield "emaDecay: 0", {"ema_decay": 0.0}
    if recipe.export_dtype not in ("fp16", "bf16"):
        yield "exportDtype: fp16", {"export_dtype": "fp16"}
    if not recipe.trains_adapter:
        yield "method: lora", {"method": TrainingMethod.LORA.value, "token_learning_rate": 0.0}
