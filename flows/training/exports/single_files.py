"""The single file of a fine-tune: every part under the names the model was published with, and what other tools read.

Nothing in a file differs between two runs of one recipe: no date, host or job. Sources: Stability-AI/ModelSpec 1.0.1
(`modelspec.`), kohya-ss/sd-scripts (`ss_` and the two `sshs_` hashes).
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from torch import Tensor

from flows.diffusion.families.layout import weight_files_of
from flows.diffusion.families.protocol import Family
from flows.training.tensor_files import payload_sha256, read_metadata, read_tensors, write_tensors
from storage.blobs.weights import LENGTH_BYTES, check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.training import TrainingRecipe

IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
"""The code that the names are of, as the standard calls it."""
SCHEDULE_FILE = "scheduler/scheduler_config.json"

_PREDICTIONS = {"epsilon": "epsilon", "v_prediction": "v"}
# The bytes of a file whose SHA-256 is its oldest hash (AutoV1).
_LEGACY_BEGIN, _LEGACY_BYTES, _LEGACY_DIGITS = 0x100000, 0x10000, 8


def write_single_file(family: Family, folder: Path, recipe: TrainingRecipe, recipe_hash: str, target: Path) -> None:
    """Every part of a diffusers folder in one file. Raises WeightsRefused for a part that has no place in it."""
    schedule = read_schedule(folder)
    parts = {component: tensors_of(folder / file) for component, file in family.layout.weight_files.items()}
    facts = metadata(family, recipe, recipe_hash, schedule) | {"sshs_legacy_hash": "0" * _LEGACY_DIGITS}
    write_tensors(target, family.original_tensors(parts, schedule), facts, payload_keys=("sshs_model_hash",))
    _put_legacy_hash(target)
    check_weights(target)
    if read_metadata(target)["sshs_model_hash"] != payload_sha256(target):
        raise WeightsRefused("hash", f"{target.name} does not match its own hash after writing; check the disk.")


def tensors_of(file: Path) -> dict[str, Tensor]:
    """Every tensor of a weights file, or of the shards that it was written in. Raises WeightsRefused."""
    return {name: tensor for shard in weight_files_of(file) for name, tensor in read_tensors(shard).items()}


def read_schedule(folder: Path) -> dict[str, Any]:
    """The settings of a model folder's noise schedule."""
    return msgspec.json.decode((folder / SCHEDULE_FILE).read_bytes(), type=dict[str, Any])


def metadata(family: Family, recipe: TrainingRecipe, recipe_hash: str, schedule: Mapping[str, Any]) -> dict[str, str]:
    """What the header says: modelspec 1.0.1, kohya's keys that tools read, the hashes of recipe and base model."""
    size = f"{recipe.resolution}x{recipe.resolution}"
    phrase = f"{recipe.identifier} {recipe.class_word}"
    prediction = _PREDICTIONS.get(schedule.get("prediction_type", "epsilon"), "epsilon")
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.architecture,
        "modelspec.implementation": IMPLEMENTATION,
        "modelspec.title": phrase,
        "modelspec.resolution": size,
        "modelspec.prediction_type": prediction,
        "modelspec.trigger_phrase": phrase,
        "ss_output_name": phrase,
        "ss_base_model_version": family.kohya_version,
        "ss_v2": "False",
        "ss_v_parameterization": str(prediction == "v"),
        "ss_resolution": f"({recipe.resolution}, {recipe.resolution})",
        "ss_steps": str(recipe.last_step),
        "ss_max_train_steps": str(recipe.steps),
        "ss_batch_size_per_device": str(recipe.batch_size),
        "ss_optimizer": recipe.optimizer,
        "ss_seed": str(recipe.seed),
        "ss_learning_rate": str(recipe.learning_rate),
        "ss_unet_lr": str(recipe.learning_rate),
        "ss_text_encoder_lr": str(recipe.text_encoder_learning_rate),
        "ss_prior_loss_weight": str(recipe.prior_loss_weight),
        "ss_num_reg_images": str(recipe.regularization_count if recipe.prior_loss_weight > 0 else 0),
        "darkroom.recipe": recipe_hash,
        "darkroom.base_model": recipe.base_model_hash,
    }


def legacy_hash(path: Path) -> str:
    """The oldest hash of a file (AutoV1): of 64 KiB at 1 MiB, of nothing where it is shorter."""
    with path.open("rb") as file:
        file.seek(_LEGACY_BEGIN)
        return hashlib.sha256(file.read(_LEGACY_BYTES)).hexdigest()[:_LEGACY_DIGITS]


def _put_legacy_hash(file: Path) -> None:
    """Write the file's AutoV1 hash into its header, over digits that hold its place.

    The bytes it is of begin at 1 MiB, behind the header, so that it may stand in there.
    """
    digest = legacy_hash(file)
    with file.open("r+b") as stream:
        (length,) = struct.unpack("<Q", stream.read(LENGTH_BYTES))
        header = json.loads(stream.read(length))
        header["__metadata__"]["sshs_legacy_hash"] = digest
        written = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
        stream.seek(LENGTH_BYTES)
        stream.write(written + b" " * (length - len(written)))
