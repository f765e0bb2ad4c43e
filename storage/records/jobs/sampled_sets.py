"""Sets of images that are drawn once from a base model and shared by the jobs that need them."""

from __future__ import annotations

import hashlib

import msgspec


class SamplerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How images are drawn: DDIM (Song et al. 2021), `steps` denoising steps, classifier-free guidance scale."""

    steps: int = 25
    guidance_scale: float = 3.0


class SamplingRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """A fixed set of images drawn from one base model: a regularization set or a base's floor. One prompt and one
    seed an image, one generator an image; drawn in batches of `batch_size` that are written and repeated whole."""

    base_model_hash: str
    family: str
    resolution: int
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    sampler: SamplerSettings
    batch_size: int
    threads: int
    dtype: str = "float32"
    libraries: dict[str, str] = {}
    device: str = ""

    def fingerprint(self) -> str:
        """SHA-256 of the recipe's canonical JSON: the key that later jobs share it by."""
        return fingerprint(self)


def fingerprint(value: msgspec.Struct) -> str:
    """SHA-256 (64 hex digits) of a record's JSON with sorted keys."""
    return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def class_images_recipe(
    *,
    base_model_hash: str,
    family: str,
    resolution: int,
    class_prompt: str,
    count: int,
    sampler: SamplerSettings,
    threads: int,
    libraries: dict[str, str],
    device: str,
    dtype: str = "float32",
) -> SamplingRecipe:
    """A set of images of a class. Seeds are 0, 1, 2, ... so that jobs share it."""
    return SamplingRecipe(
        base_model_hash=base_model_hash,
        family=family,
        resolution=resolution,
        prompts=(class_prompt,) * count,
        seeds=tuple(range(count)),
        sampler=sampler,
        batch_size=16,  # part of the set's fingerprint: another number has every set drawn again
        threads=threads,
        dtype=dtype,
        libraries=libraries,
        device=device,
    )
