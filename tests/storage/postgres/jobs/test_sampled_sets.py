"""A set of class images is shared by every job that needs it, or the beginning of it."""

from __future__ import annotations

import msgspec

from storage.postgres.connection import Database
from storage.postgres.jobs import sampled_sets
from storage.postgres.jobs.sampled_sets import SampledImage
from storage.records.jobs.sampled_sets import SamplerSettings, SamplingRecipe, class_images_recipe


def a_set(count: int, threads: int = 1) -> SamplingRecipe:
    return class_images_recipe(
        base_model_hash="b" * 64,
        family="sd1",
        resolution=64,
        class_prompt="a photo of a mug",
        count=count,
        sampler=SamplerSettings(),
        threads=threads,
        libraries={"torch": "2.13.0"},
        device="cpu",
    )


def an_image(position: int) -> SampledImage:
    return SampledImage(position=position, sha256=f"{position:064}", size=1)


def test_a_larger_set_begins_with_the_images_of_a_smaller_one(database: Database) -> None:
    small, large = a_set(2), a_set(4, threads=8)
    assert database.run(lambda: sampled_sets.ensure(small)) == []
    database.run(sampled_sets.put_batch(small.key(), [an_image(0), an_image(1)]))
    assert database.run(lambda: sampled_sets.ensure(large)) == [an_image(0), an_image(1)]
    database.run(sampled_sets.put_batch(large.key(), [an_image(2), an_image(3)]))
    assert database.run(lambda: sampled_sets.ensure(small)) == [an_image(0), an_image(1)]
    assert database.run(sampled_sets.images(large)) == [an_image(position) for position in range(4)]
    with database.connect() as connection:
        rows = connection.execute("select recipe_hash, images from sampled_sets").fetchall()
    assert rows == [{"recipe_hash": small.key(), "images": 4}]


def test_a_set_of_another_prompt_is_another(database: Database) -> None:
    mugs = a_set(1)
    cars = msgspec.structs.replace(mugs, prompts=("a photo of a car",))
    database.run(lambda: sampled_sets.ensure(mugs))
    database.run(sampled_sets.put_batch(mugs.key(), [an_image(0)]))
    assert database.run(lambda: sampled_sets.ensure(cars)) == []
