"""Trained components to files: a diffusers folder and one single file, equal bytes for equal weights.

What training did not touch is copied from the base model byte for byte. What it changed keeps the base file's tensor
names and dtypes. Nothing in a file differs between two runs of one recipe: no date, host or job.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.diffusion.families.protocol import Components, Family
from flows.training.tensor_files import DTYPES, payload_sha256, read_metadata, read_tensors, write_tensors
from storage.blobs.hashing import hash_again
from storage.blobs.headers import TensorFacts
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.catalog.catalog import FileHashes
from storage.records.jobs.training import TrainingRecipe

SINGLE_FILE = "model.safetensors"
FOLDER = "folder"
_OLD_TEXT_PREFIX = "text_model."


@dataclass(frozen=True)
class Export:
    """A finished export: `folder` is a complete diffusers folder, `single_file` holds every component. `hashes` are
    what other tools know that file by."""

    folder: Path
    single_file: Path
    hashes: FileHashes

    def members(self) -> list[str]:
        """Paths of the folder's files inside it, sorted."""
        return sorted(str(file.relative_to(self.folder)) for file in self.folder.rglob("*") if file.is_file())


def export_model(
    family: Family,
    components: Components,
    changed: frozenset[str],
    recipe: TrainingRecipe,
    recipe_hash: str,
    target: Path,
    between_files: Callable[[], None] = lambda: None,
) -> Export:
    """Write trained components under `target`, then read every weights file back and check it.

    `between_files` is called before each file. Raises WeightsRefused if what was written is not what was trained.
    """
    folder = target / FOLDER
    # A new attempt in the same process: what a cut-off export left may be half a file.
    shutil.rmtree(target, ignore_errors=True)
    rewritten = {family.layout.weight_files[name] for name in changed}
    for source in _model_files(components.folder):
        name = source.relative_to(components.folder)
        if str(name) not in rewritten:
            between_files()
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
    for component in sorted(changed):
        between_files()
        file = family.layout.weight_files[component]
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        tensors = tensors_like(components.folder / file, components.modules[component])
        write_tensors(folder / file, tensors, {"format": "pt"})
        check_weights(folder / file)
    between_files()
    single = target / SINGLE_FILE
    write_single_file(family, folder, recipe, recipe_hash, single)
    return Export(folder, single, hash_again(single, single.stat().st_size).finish().hashes)


def tensors_like(base_file: Path, module: nn.Module) -> dict[str, Tensor]:
    """A module's weights with the names and dtypes that the base model's own file uses.

    The same text encoder is saved with or without `text_model.` before its names, by its origin; both are read here.
    Raises WeightsRefused when the module and the file do not hold the same tensors.
    """
    state = module.state_dict()
    base = check_weights(base_file, dtypes=frozenset(DTYPES)).tensors
    tensors: dict[str, Tensor] = {}
    for name, facts in base.items():
        inside = _name_in(state, name)
        if inside is None:
            if name.endswith("position_ids"):  # old files store this counter; it is no weight
                tensors[name] = torch.arange(facts.shape[-1]).expand(facts.shape).to(DTYPES[facts.dtype])
                continue
            raise WeightsRefused("names", f"{base_file.name} has a tensor '{name}' that the loaded model has not.")
        tensors[name] = state[inside].to(DTYPES[facts.dtype])
    _refuse_lost(base_file, state, base)
    return tensors


def write_single_file(family: Family, folder: Path, recipe: TrainingRecipe, recipe_hash: str, target: Path) -> None:
    """Every component of a diffusers folder in one file, names prefixed with the component's (`unet.`, ...)."""
    tensors: dict[str, Tensor] = {}
    for component, file in family.layout.weight_files.items():
        for name, tensor in read_tensors(folder / file).items():
            tensors[f"{component}.{name.removeprefix(_OLD_TEXT_PREFIX)}"] = tensor
    write_tensors(target, tensors, metadata(family, recipe, recipe_hash), payload_keys=("sshs_model_hash",))
    check_weights(target)
    if read_metadata(target)["sshs_model_hash"] != payload_sha256(target):
        raise WeightsRefused("hash", f"{target.name} does not match its own hash after writing; check the disk.")


def metadata(family: Family, recipe: TrainingRecipe, recipe_hash: str) -> dict[str, str]:
    """The single file's metadata: what modelspec 1.0.1 requires, kohya's keys that tools read, the recipe's hash."""
    size = f"{recipe.resolution}x{recipe.resolution}"
    phrase = f"{recipe.identifier} {recipe.class_word}"
    return {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": family.architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": phrase,
        "modelspec.resolution": size,
        "modelspec.trigger_phrase": phrase,
        "ss_output_name": phrase,
        "ss_base_model_version": recipe.family,
        "ss_resolution": size,
        "ss_steps": str(recipe.steps),
        "ss_seed": str(recipe.seed),
        "ss_learning_rate": str(recipe.learning_rate),
        "ss_text_encoder_lr": str(recipe.text_encoder_learning_rate),
        "ss_prior_loss_weight": str(recipe.prior_loss_weight),
        "ss_num_reg_images": str(recipe.regularization_count if recipe.prior_loss_weight > 0 else 0),
        "darkroom.recipe": recipe_hash,
        "darkroom.base_model": recipe.base_model_hash,
    }


def _model_files(folder: Path) -> Iterator[Path]:
    """The files of a base folder that belong to the pipeline: its index and the folders that the index names."""
    yield folder / "model_index.json"
    # Sorted, since a folder's own order differs between machines. The judge measures the model and is no part of it.
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "judge"):
        yield from sorted(path for path in part.rglob("*") if path.is_file())
    if (folder / "darkroom.json").is_file():
        yield folder / "darkroom.json"


def _name_in(state: Mapping[str, object], name: str) -> str | None:
    other = name.removeprefix(_OLD_TEXT_PREFIX) if name.startswith(_OLD_TEXT_PREFIX) else _OLD_TEXT_PREFIX + name
    return name if name in state else other if other in state else None


def _refuse_lost(base_file: Path, state: Mapping[str, Tensor], base: Mapping[str, TensorFacts]) -> None:
    lost = [name for name in state if _name_in(base, name) is None]
    if lost:
        raise WeightsRefused("names", f"the model has weights that {base_file.name} has no place for: {lost[:3]}.")
