"""What a recipe keeps of its photos: shapes, crops, flips, and the class images beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps

from flows.diffusion.families.protocol import Components
from flows.training.data import draw_micro_batch
from flows.training.fit import fit
from flows.training.photos.crops import pixels_of
from flows.training.photos.latents import LatentImages, TrainingImages, encode_for, encode_pixels
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, pictures, recipe

CROPS: dict[str, Any] = {"random_crop": True, "cached_crops": 3}


def photos() -> list[Image.Image]:
    """A square one, a wide one, a high one and another wide one."""
    sizes = ((80, 80), (128, 64), (60, 120), (140, 70))
    return [picture.resize(size) for picture, size in zip(pictures(4), sizes, strict=True)]


def encoded(components: Components, wanted: TrainingRecipe, class_count: int = 3) -> TrainingImages:
    return encode_for(wanted, FAMILY, components, photos(), pictures(class_count, "class"))


def of_pixels(components: Components, pixels: torch.Tensor) -> LatentImages:
    return encode_pixels(FAMILY, components, [pixels])


def test_by_default_every_image_is_its_middle_square(components: Components):
    images = encoded(components, recipe())
    assert images.others == ()
    assert (len(images.instance), images.instance.views) == (4, 1)
    middle = of_pixels(components, pixels_of(photos()[1], (64, 64)))
    assert torch.equal(images.instance.mean[1], middle.mean[0])


def test_photos_and_class_images_share_each_shape(components: Components):
    images = encoded(components, recipe(bucketing=True), class_count=8)
    shapes = images.shapes
    assert [len(one.instance) for one in shapes] == [1, 2, 1]
    for one in shapes:
        assert one.regularization is not None
        assert one.instance.mean.shape[1:] == one.regularization.mean.shape[1:]
    assert [len(one.regularization or ()) for one in shapes] == [2, 4, 2]
    wide = shapes[1].instance.mean.shape
    assert wide[3] > wide[2]
    assert torch.equal(shapes[1].instance.mean[1], of_pixels(components, pixels_of(photos()[3], (88, 40))).mean[0])


def test_crops_lie_at_random_places_that_the_seed_decides(components: Components):
    wanted = recipe(**CROPS)
    images = encoded(components, wanted)
    assert (len(images.instance), images.instance.views, len(images.instance.mean)) == (4, 3, 12)
    assert torch.equal(images.instance.mean, encoded(components, wanted).instance.mean)
    assert not torch.equal(images.instance.mean, encoded(components, recipe(**{**CROPS, "seed": 8})).instance.mean)
    of_the_wide_one = images.instance.mean[3:6]
    assert not torch.equal(of_the_wide_one[0], of_the_wide_one[1])
    assert torch.equal(images.instance.mean[0], images.instance.mean[1])  # a square has one crop


def test_a_flip_is_encoded_for_itself(components: Components):
    images = encoded(components, recipe(random_flip=True), class_count=32)
    assert images.instance.views == 2
    mirrored = of_pixels(components, pixels_of(ImageOps.mirror(photos()[0]), (64, 64)))
    assert torch.equal(images.instance.mean[1], mirrored.mean[0])
    prior, plain = images.regularization, encoded(components, recipe(), class_count=32).regularization
    assert prior is not None
    assert plain is not None
    same = [torch.equal(one, other) for one, other in zip(prior.mean, plain.mean, strict=True)]
    assert 6 < sum(same) < 26  # about every other


def test_a_photos_prompt_and_its_repeats_stay_with_it(components: Components):
    wanted = recipe(bucketing=True, batch_size=2)
    said = ["square", "wide", "high", "wide too"]
    images = encode_for(wanted, FAMILY, components, photos(), [], prompts=said, repeats=[1, 2, 3, 4])
    assert [one.instance.prompts for one in images.shapes] == [("square",), ("wide", "wide too"), ("high",)]
    assert [one.instance.repeats for one in images.shapes] == [(1,), (2, 4), (3,)]
    assert all(one.regularization is None for one in images.shapes)


def test_a_training_with_everything_on_repeats_byte_for_byte(tiny_model: Path, tmp_path: Path):
    wanted = recipe(
        steps=6, batch_size=2, accumulation=2, bucketing=True, random_crop=True, cached_crops=2, random_flip=True
    )
    components = loaded(tiny_model)
    drawn = [draw_micro_batch(encoded(components, wanted), wanted, number, 1000) for number in range(12)]
    assert len({one.shape for one in drawn}) == 3
    captions = ["a red thing", "", "a photo of a sks mug", "a red thing"]
    first, second = (trained(tiny_model, tmp_path / name, wanted, captions) for name in ("a", "b"))
    for name, weight in first.items():
        assert torch.equal(weight, second[name]), name


def trained(base: Path, work: Path, wanted: TrainingRecipe, captions: list[str]) -> dict[str, torch.Tensor]:
    components = loaded(base)
    images = encode_for(
        wanted, FAMILY, components, photos(), pictures(3, "class"), prompts=captions, repeats=[1, 2, 1, 1]
    )
    work.mkdir()
    kept = KeptCheckpoints(work / "kept")
    fit(wanted, FAMILY, components, images, recipe_hash="r", newest=None, checkpoints=kept, work_folder=work)
    return components.unet.state_dict()
