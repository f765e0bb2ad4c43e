"""Photos and class images through the VAE, once: what a training keeps of them in memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.diffusion.families.protocol import Components, Family, ImageSizes
from flows.runs.liveness import advanced
from flows.training.photos.crops import MIDDLE, pixels_of, sizes_of
from flows.training.photos.encodings import EncodingCache
from flows.training.photos.pictures import Picture, one_by_one
from flows.training.photos.random_numbers import generator_for
from flows.training.photos.shapes import Shape, partners, sorted_into_shapes
from storage.records.jobs.training import TrainingRecipe

Centre = tuple[float, float]


@dataclass(frozen=True)
class LatentImages:
    """Images of one shape as the VAE's posterior: mean and standard deviation, each (N x views, C, H, W), scaled.

    Both are kept, and each step draws its own sample, so that training on the cache equals training without one.
    `views` counts the cached crops and flips of an image; those of one image are consecutive rows. `prompts` has one
    prompt an image, or nothing where the recipe's prompt is for all; `repeats` how often an image comes in a pass, or
    nothing where each comes once; `sizes` how each row came to be, or nothing where each is a whole image.
    """

    mean: Tensor
    std: Tensor
    views: int = 1
    prompts: tuple[str, ...] = ()
    repeats: tuple[int, ...] = ()
    sizes: tuple[ImageSizes, ...] = ()

    @property
    def one_pass(self) -> list[int]:
        """The images of a pass, by number, in no order yet."""
        repeats = self.repeats or (1,) * len(self)
        return [image for image, times in enumerate(repeats) for _ in range(times)]

    def __len__(self) -> int:
        """Images, not rows."""
        return self.mean.shape[0] // self.views

    def sample(self, rows: Tensor, noise: Tensor) -> Tensor:
        """One posterior sample for each of `rows`: (B,) and (B, C, H, W) to (B, C, H, W)."""
        return self.mean[rows] + self.std[rows] * noise


@dataclass(frozen=True)
class TrainingImages:
    """What a fit learns from: images of one shape. `regularization` is None without prior preservation.

    `others` are the images of further shapes, where the recipe sorts them by aspect ratio.
    """

    instance: LatentImages
    regularization: LatentImages | None
    others: tuple[TrainingImages, ...] = ()

    @property
    def shapes(self) -> tuple[TrainingImages, ...]:
        """The images of every shape."""
        return (self, *self.others)


def encode_images(
    family: Family,
    components: Components,
    images: Sequence[Picture],
    resolution: int,
    cache: EncodingCache | None = None,
    sources: Sequence[str] = (),
) -> LatentImages:
    """The middle square of every image as latents; `cache` and `sources` as `encode_pixels` takes them."""
    pixels = (pixels_of(image, (resolution, resolution)) for image in one_by_one(images))
    return encode_pixels(family, components, pixels, cache=cache, sources=sources)


def encode_pixels(
    family: Family,
    components: Components,
    pixels: Iterable[Tensor],
    views: int = 1,
    cache: EncodingCache | None = None,
    sources: Sequence[str] = (),
) -> LatentImages:
    """Pixels (3, H, W) of one shape as latents, one at a time: a latent does not depend on its neighbours.

    sources: for each the SHA-256 of the photo that it is of, or none for any.
    """
    means: list[Tensor] = []
    stds: list[Tensor] = []
    with torch.no_grad():
        for number, one in enumerate(pixels):
            image = one.unsqueeze(0)
            if cache is None:
                mean, std = family.encode_images(components, image.to(components.device))
            else:
                mean, std = cache.latents(components, image, sources[number] if sources else "")
            means.append(mean)
            stds.append(std)
            advanced()
    return LatentImages(torch.cat(means), torch.cat(stds), views)


def encode_for(
    recipe: TrainingRecipe,
    family: Family,
    components: Components,
    photos: Sequence[Picture],
    class_images: Sequence[Picture],
    *,
    prompts: Sequence[str] = (),
    repeats: Sequence[int] = (),
    cache: EncodingCache | None = None,
    sources: Sequence[str] = (),
) -> TrainingImages:
    """All that a recipe trains on, sorted into its shapes, with every crop and flip that it asks for.

    A photo has `cached_crops` random crops, each also mirrored if the recipe flips. A class image is there once, at a
    random place and perhaps mirrored: there are many of them. `prompts`, `repeats` and `sources` (the photos' SHA-256):
    one a photo, or none. Without `class_images` there is no prior. What is in `cache` is not encoded again. A
    picture is decoded when its crops are due.
    """
    if cache is not None and prompts and sources:
        cache.own(prompts, sources)
    found: list[TrainingImages] = []
    for shape, places in sorted_into_shapes([photo.size for photo in photos], recipe).items():
        placed = [(photos[place], *view) for place in places for view in _views(recipe, place)]
        views = len(placed) // len(places)
        origins = [sources[place] for place in places for _ in range(views) if sources]
        instance = _encoded(family, components, placed, shape, views, cache, origins)
        instance = replace(
            instance,
            prompts=tuple(prompts[place] for place in places if prompts),
            repeats=tuple(repeats[place] for place in places if repeats),
        )
        prior = None
        if class_images:
            beside = partners(places, len(photos), len(class_images))
            placed = [(class_images[place], *_class_view(recipe, place)) for place in beside]
            prior = _encoded(family, components, placed, shape, cache=cache)
        found.append(TrainingImages(instance, prior))
    first, *others = found
    return replace(first, others=tuple(others))


def _encoded(
    family: Family,
    components: Components,
    placed: Sequence[tuple[Picture, Centre, bool]],
    shape: Shape,
    views: int = 1,
    cache: EncodingCache | None = None,
    sources: Sequence[str] = (),
) -> LatentImages:
    sizes: list[ImageSizes] = []

    def pixels() -> Iterator[Tensor]:
        # One after the other: all crops of all photos take a hundred times the memory of their latents.
        images = one_by_one([picture for picture, _, _ in placed])
        for image, (_, centre, flipped) in zip(images, placed, strict=True):
            sizes.append(sizes_of(image.size, shape, centre, flipped=flipped))
            yield pixels_of(image, shape, centre, flipped=flipped)

    latents = encode_pixels(family, components, pixels(), views, cache, sources)
    return replace(latents, sizes=tuple(sizes))


def _views(recipe: TrainingRecipe, place: int) -> Iterator[tuple[Centre, bool]]:
    """Where each view of a photo lies, and whether it is mirrored."""
    for number in range(recipe.cached_crops if recipe.random_crop else 1):
        centre = _centre(recipe, f"instance/crop/{number}", place)
        yield centre, False
        if recipe.random_flip:
            # An entry of its own: a VAE's latent of a mirrored photo is not the mirrored latent.
            yield centre, True


def _class_view(recipe: TrainingRecipe, place: int) -> tuple[Centre, bool]:
    flipped = False
    if recipe.random_flip:
        flipped = bool(torch.rand(1, generator=generator_for(recipe.seed, "regularization/flip", place)) < 0.5)
    return _centre(recipe, "regularization/crop", place), flipped


def _centre(recipe: TrainingRecipe, purpose: str, place: int) -> Centre:
    if not recipe.random_crop:
        return MIDDLE
    across, down = torch.rand(2, generator=generator_for(recipe.seed, purpose, place)).tolist()
    return across, down
