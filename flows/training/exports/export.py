"""Trained components to files: a diffusers folder and one single file, equal bytes for equal weights.

What training did not touch is copied from the base model byte for byte. What it changed keeps the base file's tensor
names and dtypes, unless the recipe asks for another. Nothing in a file differs between two runs of one recipe.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from flows.diffusion.families.layout import index_of, weight_files_of
from flows.diffusion.families.original_names import TEXT_PREFIX
from flows.diffusion.families.protocol import Components, Family
from flows.training.exports.single_files import tensors_of, write_single_file
from flows.training.tensor_files import DTYPES, write_tensors
from storage.blobs.hashing import hash_again
from storage.blobs.headers import TensorFacts
from storage.blobs.weights import check_weights
from storage.errors import WeightsRefused
from storage.records.catalog.catalog import FileHashes
from storage.records.jobs.training import TrainingRecipe

SINGLE_FILE = "model.safetensors"
FOLDER = "folder"
EXPORT_DTYPES = {"base": None, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""Element types of an export by their names in a recipe; None: each file's as in the base model."""


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
    """Write trained components into a new folder `target`, then read every weights file back and check it.

    `between_files` is called before each file. Raises WeightsRefused if what was written is not what was trained, and
    FileExistsError where something is in the way.
    """
    folder, base = target / FOLDER, components.folder
    target.mkdir(parents=True)
    dtype = EXPORT_DTYPES[recipe.export_dtype]
    # What keeps its values and its element type keeps its file, byte for byte.
    rewritten = changed if dtype is None else frozenset(family.layout.weight_files)
    files = {name: base / family.layout.weight_files[name] for name in sorted(rewritten)}
    left_out = {path for file in files.values() for path in (*weight_files_of(file), index_of(file))}
    for source in _model_files(base):
        if source not in left_out:
            between_files()
            copy = folder / source.relative_to(base)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    for component, file in files.items():
        between_files()
        copy = folder / file.relative_to(base)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if component in changed:
            tensors = tensors_like(file, components.modules[component], dtype)
        else:
            tensors = {name: as_dtype(name, tensor, dtype) for name, tensor in tensors_of(file).items()}
        write_tensors(copy, tensors, {"format": "pt"})
        check_weights(copy)
    between_files()
    single = target / SINGLE_FILE
    write_single_file(family, folder, recipe, recipe_hash, single)
    return Export(folder, single, hash_again(single, single.stat().st_size).finish().hashes)


def tensors_like(base_file: Path, module: nn.Module, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
    """A module's weights with the names that the base model's own file, or its shards, use, and its dtypes or `dtype`.

    The same text encoder is saved with or without `text_model.` before its names, by its origin; both are read here.
    Raises WeightsRefused when the module and the file do not hold the same tensors.
    """
    state = module.state_dict()
    base = {
        name: facts
        for shard in weight_files_of(base_file)
        for name, facts in check_weights(shard, dtypes=frozenset(DTYPES)).tensors.items()
    }
    tensors: dict[str, Tensor] = {}
    for name, facts in base.items():
        inside = _name_in(state, name)
        if inside is None:
            if name.endswith("position_ids"):  # old files store this counter; it is no weight
                tensors[name] = torch.arange(facts.shape[-1]).expand(facts.shape).to(DTYPES[facts.dtype])
                continue
            raise WeightsRefused("names", f"{base_file.name} has a tensor '{name}' that the loaded model has not.")
        tensors[name] = as_dtype(name, state[inside], dtype or DTYPES[facts.dtype])
    _refuse_lost(base_file, state, base)
    return tensors


def as_dtype(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """The tensor `name` with its numbers as `dtype`; counters stay whole numbers, and None changes nothing.

    Raises WeightsRefused when a finite number is none in `dtype`.
    """
    if dtype is None or not tensor.is_floating_point():
        return tensor
    cast = tensor.to(dtype)
    if not cast.isfinite().all() and tensor.isfinite().all():
        raise WeightsRefused(
            "overflow",
            f"'{name}' has numbers too large for {dtype}. Ask for exportDtype bf16, which has the range of fp32.",
        )
    return cast


def _model_files(folder: Path) -> Iterator[Path]:
    """The files of a base folder that belong to the pipeline: its index and the folders that the index names."""
    yield folder / "model_index.json"
    # Sorted, since a folder's own order differs between machines. The judge measures the model and is no part of it.
    for part in sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "judge"):
        yield from sorted(path for path in part.rglob("*") if path.is_file())
    if (folder / "darkroom.json").is_file():
        yield folder / "darkroom.json"


def _name_in(state: Mapping[str, object], name: str) -> str | None:
    other = name.removeprefix(TEXT_PREFIX) if name.startswith(TEXT_PREFIX) else TEXT_PREFIX + name
    return name if name in state else other if other in state else None


def _refuse_lost(base_file: Path, state: Mapping[str, Tensor], base: Mapping[str, TensorFacts]) -> None:
    lost = [name for name in state if _name_in(base, name) is None]
    if lost:
        raise WeightsRefused("names", f"the model has weights that {base_file.name} has no place for: {lost[:3]}.")
