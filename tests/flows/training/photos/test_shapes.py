from __future__ import annotations

import pytest

from flows.training.photos.shapes import nearest_shape, partners, shapes_of, sorted_into_shapes
from tests.flows.training.tiny import recipe


def test_without_bucketing_there_is_the_square():
    assert shapes_of(recipe(resolution=512)) == ((512, 512),)


@pytest.mark.parametrize(("resolution", "step"), [(512, 64), (1024, 64), (64, 8), (256, 32)])
def test_shapes_are_of_about_one_area_with_sides_that_the_base_takes(resolution: int, step: int):
    shapes = shapes_of(recipe(resolution=resolution, bucketing=True))
    assert (resolution, resolution) in shapes
    assert len(shapes) > 4
    for width, height in shapes:
        assert (width % step, height % step) == (0, 0)
        assert resolution // 2 <= min(width, height)
        assert max(width, height) <= 2 * resolution
        assert 0.7 * resolution**2 <= width * height <= resolution**2
        assert (height, width) in shapes


def test_step_and_sides_are_the_recipes():
    shapes = shapes_of(
        recipe(resolution=512, bucketing=True, bucket_step=128, bucket_min_side=384, bucket_max_side=640)
    )
    assert shapes == ((384, 640), (512, 512), (640, 384))


def test_a_photo_takes_the_shape_that_cuts_least_off_it():
    shapes = ((384, 640), (512, 512), (640, 384))
    assert nearest_shape((3000, 3000), shapes) == (512, 512)
    assert nearest_shape((3000, 4000), shapes) == (384, 640)
    assert nearest_shape((4000, 2250), shapes) == (640, 384)
    assert nearest_shape((450, 400), shapes) == (512, 512)
    # As ratios: 1.3 lies nearer to 5/3 than to 1, as 1/1.3 does to 3/5.
    assert nearest_shape((1300, 1000), shapes) == (640, 384)
    assert nearest_shape((1000, 1300), shapes) == (384, 640)


def test_photos_are_sorted_in_the_order_of_the_first_of_each_shape():
    wanted = recipe(resolution=64, bucketing=True)
    found = sorted_into_shapes([(100, 100), (200, 100), (99, 100), (100, 200)], wanted)
    assert list(found.values()) == [[0, 2], [1], [3]]
    assert next(iter(found)) == (64, 64)


def test_each_shape_has_class_images_in_proportion_and_at_least_one():
    shares = [partners(photos, 4, 100) for photos in ([0, 2, 3], [1])]
    assert [len(share) for share in shares] == [75, 25]
    assert sorted(shares[0] + shares[1]) == list(range(100))
    assert partners([3], 4, 2) == [1]
    assert partners([0, 1], 2, 1) == [0]
