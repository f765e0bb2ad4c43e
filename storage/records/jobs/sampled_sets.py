"""Sets of images that are drawn once from a base model and shared by the jobs that need them."""

from __future__ import annotations

import hashlib

import msgspec

TRAINING_ALONE = frozenset({"pytorch-lightning", "peft", "bitsandbytes", "pytorch-optimizer"})
"""Libraries of a recipe that draw no image."""
SCENES, SEEDS_PER_SCENE, CLASS_IMAGES = 6, 4, 8
"""What an evaluation draws at most: each scene so often, and so many images of the class."""


class SamplerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How images are drawn: DDIM (Song et al. 2021), `steps` denoising steps, classifier-free guidance scale."""

    steps: int = 25
    guidance_scale: float = 3.0


class SamplingRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """Images to be drawn from one base model: a regularization set or a base's floor.

    One prompt, one seed and one generator an image; at most `batch_size` are drawn and written at once. `dtype` is what
    the model's weights are held in.
    """

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

    @property
    def extends(self) -> bool:
        """Whether the images are seeds 0, 1, 2, ... of one prompt, so that a smaller set is a part of a larger one."""
        return len(set(self.prompts)) == 1 and self.seeds == tuple(range(len(self.seeds)))

    def key(self) -> str:
        """SHA-256 that names the set by what it shows, for the jobs that share it.

        The number of images is no part of it where the set `extends`. Nor are batch size, threads and a library's third
        number: they move a pixel by a grey level at most, and an image that was drawn is kept as it is. The device is.
        """
        shown = {name: getattr(self, name) for name in self.__struct_fields__ if name not in ("batch_size", "threads")}
        drawing = {name: found for name, found in self.libraries.items() if name not in TRAINING_ALONE}
        shown["libraries"] = {name: ".".join(found.split(".")[:2]) for name, found in drawing.items()}
        if self.extends:
            shown |= {"prompts": self.prompts[:1], "seeds": "0, 1, 2, ..."}
        return _sha256(shown)


def fingerprint(value: msgspec.Struct) -> str:
    """SHA-256 (64 hex digits) of a record's JSON with sorted keys."""
    return _sha256(value)


def _sha256(value: object) -> str:
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
    """A set of images of a class. Seeds are 0, 1, 2, ... so that jobs share it, and draw only what is missing of it."""
    return SamplingRecipe(
        base_model_hash=base_model_hash,
        family=family,
        resolution=resolution,
        prompts=(class_prompt,) * count,
        seeds=tuple(range(count)),
        sampler=sampler,
        batch_size=16,
        threads=threads,
        dtype=dtype,
        libraries=libraries,
        device=device,
    )
