from __future__ import annotations

from PIL import Image

from flows.training.photos.crops import pixels_of


def test_a_wide_photo_is_cropped_in_the_middle_and_never_squashed():
    wide = Image.new("RGB", (300, 100), "black")
    wide.paste("white", (100, 0, 200, 100))
    pixels = pixels_of(wide, (64, 64))
    assert pixels.shape == (3, 64, 64)
    assert pixels.min() > 0.9  # only the white middle is left


def test_pixels_span_minus_one_to_one_and_transparency_is_dropped():
    half = Image.new("RGBA", (64, 64), (255, 0, 0, 128))
    assert pixels_of(half, (64, 64))[:, 0, 0].tolist() == [1.0, -1.0, -1.0]
