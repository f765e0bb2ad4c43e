from __future__ import annotations

from PIL import Image

from flows.training.photos.crops import pixels_of, sizes_of


def test_a_wide_photo_is_cropped_in_the_middle_and_never_squashed():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    pixels = pixels_of(wide, (64, 64))
    assert pixels.shape == (3, 64, 64)
    assert pixels.min() > 0.9  # only the white middle is left


def test_pixels_span_minus_one_to_one_and_transparency_is_dropped():
    half = Image.new("RGBA", (64, 64), (255, 0, 0, 128))
    assert pixels_of(half, (64, 64))[:, 0, 0].tolist() == [1.0, -1.0, -1.0]


def test_sizes_say_where_a_crop_begins_in_the_resized_image():
    # 300 x 100 becomes 192 x 64, of which 128 pixels across are too many.
    middle = sizes_of((300, 100), (64, 64))
    assert (middle.original, middle.crop, middle.target) == ((100, 300), (0, 64), (64, 64))
    assert sizes_of((300, 100), (64, 64), (0.25, 0.5)).crop == (0, 32)
    assert sizes_of((300, 100), (64, 64), (0.25, 0.5), flipped=True).crop == (0, 96)
    assert sizes_of((32, 64), (64, 64), (0.5, 1.0)).crop == (64, 0)
    # 300 x 100 becomes 120 x 40, of which 32 across are too many for a wide shape.
    wide = sizes_of((300, 100), (88, 40))
    assert (wide.original, wide.crop, wide.target) == ((100, 300), (0, 16), (40, 88))
    whole = sizes_of((64, 64), (64, 64))
    assert (whole.original, whole.crop, whole.target) == ((64, 64), (0, 0), (64, 64))


def test_a_crop_begins_where_its_sizes_say():
    stripes = Image.new("RGB", (256, 64), "black")
    stripes.paste("white", (100, 0, 101, 64))
    for across in (0.3, 0.5):
        pixels = pixels_of(stripes, (64, 64), (across, 0.5))
        [column] = (pixels[0, 0] > 0).nonzero().flatten().tolist()
        assert sizes_of((256, 64), (64, 64), (across, 0.5)).crop[1] + column == 100
