"""What VAE and text encoders make of images and prompts, kept on this machine for later jobs.

A key names all that decides the bytes: the SHA-256 of the part's own files (not the base's name: two bases may share a
VAE), the pixels as the VAE gets them (so photo, crop, flip, size and the resizing library are all in one hash) or the
prompt, the element type, and the machine. The machine because the same model makes other bytes on another device, with
another number of threads or another torch; a cache that mixed them would break the promise that equal recipes make
equal bytes, with a warm cache and with a cold one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from flows.diffusion.families.protocol import Components, Conditioning, Family
from flows.runs.retries import run_with_retries
from flows.training.tensor_files import bytes_of
from flows.upkeep.retention.folder_rules import ENCODINGS, ENCODINGS_OF_NO_PHOTO
from storage.blobs.cached_files import CachedFiles
from storage.postgres.jobs import base_models
from storage.records.jobs.training import TrainingRecipe
from storage.stores import Stores

FORMAT = 1
"""Raised when what stands in a file, or how it is made, changes."""


def part_hashes(files: Mapping[str, str]) -> dict[str, str]:
    """The SHA-256 of each folder of a base model over its files (path inside the base to SHA-256)."""
    lines: dict[str, list[str]] = {}
    for path, sha256 in sorted(files.items()):
        part, separator, inside = path.partition("/")
        if separator:
            lines.setdefault(part, []).append(f"{inside} {sha256}")
    return {part: hashlib.sha256("\n".join(found).encode()).hexdigest() for part, found in lines.items()}


def deferred_parts(family: Family, recipe: TrainingRecipe) -> frozenset[str]:
    """The parts that a training needs for nothing but encodings and samples."""
    return frozenset({"vae", *(() if recipe.trains_text else family.layout.text_encoders)})


def open_encodings(stores: Stores, family: Family, recipe: TrainingRecipe) -> EncodingCache:
    """What this machine has of the base's encodings."""
    place = stores.cache_folder / ENCODINGS
    # Not looked through for what is too much: the rules of folders do that on each machine where jobs end, and a disk
    # that has less room than the floor gets no more of it.
    rows = run_with_retries(stores, lambda: base_models.files_of(recipe.base_model_hash))
    files = CachedFiles(place, stores.settings.quotas.free_space_bytes)
    return EncodingCache(files, part_hashes({row.path: row.sha256 for row in rows}), family, recipe)


class EncodingCache:
    """Latents and conditioning of one base on this machine. `parts` are its `part_hashes`."""

    def __init__(self, files: CachedFiles, parts: Mapping[str, str], family: Family, recipe: TrainingRecipe) -> None:
        self._files, self._parts, self._family = files, parts, family
        self._precision, self._held_in = recipe.precision, recipe.held_in
        self._of_no_photo = {"", recipe.instance_prompt, recipe.class_prompt}
        self._owners: dict[str, str] = {}
        self._machine = {
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            # The kernels that torch chooses among.
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cuda": [torch.version.cuda, torch.backends.cudnn.version() if torch.cuda.is_available() else None],
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }

    def latents(self, components: Components, pixels: Tensor, photo: str = "") -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of one image (1, 3, H, W), as `Family.encode_images` returns them.

        photo: the SHA-256 of the photo that the pixels are of, if they are. A photo can be drawn from its latents, so
        they are deleted when it is.
        """
        key = self._key(
            "latents",
            ("vae",),
            "diffusers",
            {"pixels": hashlib.sha256(bytes_of(pixels)).hexdigest(), "shape": list(pixels.shape), "as": "fp32"},
        )

        def encode() -> dict[str, Tensor]:
            mean, std = self._family.encode_images(components, pixels.to(components.device))
            return {"mean": mean, "std": std}

        found = self._tensors(f"{photo or ENCODINGS_OF_NO_PHOTO}/{key}", encode, components)
        return found["mean"], found["std"]

    def own(self, prompts: Sequence[str], photos: Sequence[str]) -> None:
        """Photos, by their SHA-256, and the prompt of each: a caption may name somebody, and goes with its photo."""
        for prompt, photo in zip(prompts, photos, strict=True):
            if prompt not in self._of_no_photo:
                self._owners.setdefault(prompt, photo)

    def prompt(self, components: Components, prompt: str) -> Conditioning:
        """The conditioning of one prompt, as `Family.encode_prompts` returns it under the recipe's autocast."""
        parts = [name.replace("text_encoder", kind) for name in components.text_encoders for kind in _OF_TEXT]
        # Of weights in float32 nothing is said: so are those that were kept before there were others.
        held = {} if self._held_in == "float32" else {"weights": self._held_in}
        key = self._key("prompt", parts, "transformers", {"prompt": prompt, "as": self._precision, **held})

        def encode() -> dict[str, Tensor]:
            return dict(self._family.encode_prompts(components, [prompt]).detach().tensors)

        return Conditioning(
            self._tensors(f"{self._owners.get(prompt, ENCODINGS_OF_NO_PHOTO)}/{key}", encode, components)
        )

    def _key(self, kind: str, parts: list[str] | tuple[str, ...], library: str, facts: Mapping[str, object]) -> str:
        whole = {
            "format": FORMAT,
            "kind": kind,
            "family": self._family.architecture,
            "parts": [self._parts[part] for part in parts],
            "machine": self._machine | {library: version(library)},
            **facts,
        }
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def _tensors(self, name: str, encode: Callable[[], dict[str, Tensor]], components: Components) -> dict[str, Tensor]:
        content = self._files.read(name)
        if content is not None:
            try:
                return {key: tensor.to(components.device) for key, tensor in load(content).items()}
            except SafetensorError:  # bytes that are as they were written, by a release that wrote them otherwise
                pass
        # In the form in which it is read again, so that a later sum sees the same bytes in the same order.
        made = {key: tensor.contiguous() for key, tensor in encode().items()}
        self._files.write(name, save({key: tensor.cpu() for key, tensor in made.items()}))
        return made


_OF_TEXT = ("text_encoder", "tokenizer")
