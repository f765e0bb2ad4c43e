"""How large a model folder is: the headers of its weights and its configs, read in the blob store or on a disk.

Of a file of gigabytes the first kilobytes are read, and nothing is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from storage.blobs.store import BlobStore
from storage.blobs.weights import read_weights
from storage.errors import WeightsRefused
from storage.records.jobs.base_models import BaseModelFile
from storage.records.jobs.costs.activations import UnetShape
from storage.records.jobs.costs.sizes import ModelSizes, text_shape, vae_factor_of

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
MAX_CONFIG_BYTES = 1024 * 1024


def sizes_in_store(blobs: BlobStore, files: list[BaseModelFile]) -> ModelSizes:
    """Of a registered base model. Raises WeightsRefused for one without the parts of a family, BlobMissing,
    StoreUnavailable."""
    known = {file.path: file for file in files}
    return _sizes({path: file.size for path, file in known.items()}, lambda path: blobs.open(known[path].sha256))


def sizes_of_folder(folder: Path) -> ModelSizes:
    """Of a folder in diffusers layout on this machine. Raises WeightsRefused, OSError."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    known = {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}
    return _sizes(known, lambda path: (folder / path).open("rb"))


def _sizes(known: Mapping[str, int], opened: Callable[[str], BinaryIO]) -> ModelSizes:
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}
    stored: dict[str, int] = {}
    configs: dict[str, dict[str, Any]] = {}
    for part in PARTS:
        weights = [path for path in known if path.startswith(f"{part}/") and path.endswith(".safetensors")]
        if not weights:
            continue
        shapes[part], stored[part] = {}, 0
        for path in weights:
            with closing(opened(path)) as stream:
                facts = read_weights(path, stream, known[path])
            shapes[part] |= {name: one.shape for name, one in facts.tensors.items() if one.dtype in FLOATS}
            stored[part] += known[path]
        configs[part] = _config(f"{part}/config.json", known, opened)
    if not {"unet", "vae", "text_encoder"} <= set(shapes):
        raise WeightsRefused("missing", "The base model has no weights of a UNet, a VAE and a text encoder.")
    blocks = cast(list[int], configs["vae"].get("block_out_channels", [0]))
    # The judge measures the model and is no part of it.
    exported = sum(size for path, size in known.items() if not path.startswith("judge/"))
    return ModelSizes(
        shapes=shapes,
        stored_bytes=stored,
        unet=UnetShape.of_config(configs["unet"]),
        texts={part: text_shape(configs[part]) for part in shapes if part.startswith("text_encoder")},
        vae_factor=vae_factor_of(len(blocks)),
        other_bytes=exported - sum(stored.values()),
    )


def _config(path: str, known: Mapping[str, int], opened: Callable[[str], BinaryIO]) -> dict[str, Any]:
    if known.get(path, MAX_CONFIG_BYTES + 1) > MAX_CONFIG_BYTES:
        raise WeightsRefused("missing", f"The base model has no {path} that can be read.")
    with closing(opened(path)) as stream:
        try:
            return msgspec.json.decode(stream.read(), type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise WeightsRefused("json", f"{path} of the base model is not a JSON object: {error}.") from error
