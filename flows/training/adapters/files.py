"""An adapter as files: in kohya's keys, the one that people download, and in diffusers', for `load_lora_weights`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family
from flows.training.adapters.kohya_keys import kohya_tensors
from flows.training.adapters.layers import AdapterForm, adapter_metadata, adapter_tensors, form_of
from flows.training.exports.export import EXPORT_DTYPES, as_dtype
from flows.training.exports.single_files import legacy_hash, metadata, read_schedule
from flows.training.tensor_files import payload_sha256, read_metadata, write_tensors
from flows.training.version_files import VersionFiles
from storage.blobs.hashing import hash_again
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.jobs.training import TrainingRecipe

KOHYA_FILE = "lora.safetensors"
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
"""The name under which diffusers looks for an adapter in a folder."""


def export_adapter(
    family: Family,
    components: Components,
    recipe: TrainingRecipe,
    recipe_hash: str,
    target: Path,
    between_files: Callable[[], None] = lambda: None,
) -> VersionFiles:
    """Write the components' adapter into a new folder `target` in both forms, and read both back.

    `between_files` is called before each file. Raises WeightsRefused if what was written is not what was trained, or a
    number is too large for the recipe's element type, and FileExistsError where something is in the way.
    """
    target.mkdir(parents=True)
    tensors, form = adapter_tensors(components), form_of(recipe)
    dtype = EXPORT_DTYPES[recipe.export_dtype] or torch.float32
    tensors = {name: as_dtype(name, tensor, dtype) for name, tensor in tensors.items()}
    between_files()
    kohya = target / KOHYA_FILE
    xl = "text_encoder_2" in components.modules
    facts = adapter_facts(family, recipe, recipe_hash, read_schedule(components.folder))
    _write(kohya, kohya_tensors(tensors, form.alpha, components.unet, xl=xl), facts)
    between_files()
    _write_diffusers(target / DIFFUSERS_FILE, tensors, form, facts)
    hashes = hash_again(kohya, kohya.stat().st_size).finish().hashes
    return VersionFiles(kohya, KOHYA_FILE, hashes, {DIFFUSERS_FILE: target / DIFFUSERS_FILE})


def diffusers_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An adapter's tensors by the names that any release of transformers and diffusers finds.

    A text encoder's layers stand behind `text_model.`, which older releases of transformers need and newer ones, whose
    plain text encoder has no such part, are given without by diffusers.
    """
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        component, _, inside = key.partition(".")
        if component.startswith("text_encoder") and not inside.startswith(("text_model.", "text_projection")):
            inside = f"text_model.{inside}"
        if component.startswith("text_encoder") and inside.endswith(".lora_magnitude_vector"):
            # transformers 5 reads by PEFT's names in memory; diffusers, for a UNet, by those of PEFT's files.
            inside = f"{inside}.weight"
        found[f"{component}.{inside}"] = tensor
    return found


def adapter_facts(
    family: Family, recipe: TrainingRecipe, recipe_hash: str, schedule: Mapping[str, Any]
) -> dict[str, str]:
    """What both files say of themselves: modelspec 1.0.1, and kohya's keys that tools read."""
    arguments: dict[str, object] = {}
    if recipe.lora_conv:
        arguments |= {"conv_dim": str(recipe.lora_rank), "conv_alpha": str(recipe.lora_alpha)}
    if recipe.lora_dora:
        # kohya's own network has no DoRA; LyCORIS has it, and calls such an adapter locon.
        arguments |= {"algo": "locon", "dora_wd": "True"}
    return metadata(family, recipe, recipe_hash, schedule) | {
        "modelspec.architecture": f"{family.architecture}/lora",
        "ss_network_module": "lycoris.kohya" if recipe.lora_dora else "networks.lora",
        "ss_network_dim": str(recipe.lora_rank),
        "ss_network_alpha": str(recipe.lora_alpha),
        "ss_network_dropout": str(recipe.lora_dropout),
        "ss_network_args": json.dumps(arguments, sort_keys=True),
    }


def _write(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> None:
    # Of the file as it is with the trainer's keys alone: a title that somebody changes later leaves the hash as it is.
    write_tensors(path, tensors, {name: value for name, value in facts.items() if name.startswith("ss_")})
    named = {**facts, "sshs_legacy_hash": legacy_hash(path)}
    write_tensors(path, tensors, named, payload_keys=("sshs_model_hash",))
    check_weights(path)
    if read_metadata(path)["sshs_model_hash"] != payload_sha256(path):
        raise WeightsRefused("hash", f"{path.name} does not match its own hash after writing; check the disk.")


def _write_diffusers(path: Path, tensors: Mapping[str, Tensor], form: AdapterForm, facts: Mapping[str, str]) -> None:
    named = diffusers_tensors(tensors)
    _write(path, named, {**facts, "lora_adapter_metadata": adapter_metadata(named, form)})
