"""Photos as pixels of a shape: resized to cover it, cropped, perhaps flipped; never squashed."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from flows.diffusion.families.protocol import ImageSizes

MIDDLE = (0.5, 0.5)


def pixels_of(
    image: Image.Image, size: tuple[int, int], centre: tuple[float, float] = MIDDLE, *, flipped: bool = False
) -> Tensor:
    """RGB pixels (3, H, W) in [-1, 1] of `size` (width, height), resized to cover it (Lanczos) and cropped.

    centre: where the crop lies in what is too much, each part from 0 (left, top) to 1 (right, bottom).
    """
    fitted = _fitted(image, size, centre)
    if flipped:
        fitted = ImageOps.mirror(fitted)
    array = np.asarray(fitted, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


def square_of(image: Image.Image, resolution: int) -> Image.Image:
    """The middle square of an image, `resolution` pixels wide: `pixels_of` makes the same of it as of the image."""
    return _fitted(image, (resolution, resolution), MIDDLE)


def sizes_of(
    original: tuple[int, int], size: tuple[int, int], centre: tuple[float, float] = MIDDLE, *, flipped: bool = False
) -> ImageSizes:
    """How `pixels_of` makes an image of `size` of one of `original` (both width, height), as models that read sizes are
    told: its size before, where in the resized and perhaps mirrored image the crop begins, and its size now."""
    scale = max(new / old for new, old in zip(size, original, strict=True))
    across, down = (round(scale * old) - new for old, new in zip(original, size, strict=True))
    left = round(across * (1.0 - centre[0] if flipped else centre[0]))
    return ImageSizes(
        original=(original[1], original[0]), crop=(round(down * centre[1]), left), target=(size[1], size[0])
    )


def _fitted(image: Image.Image, size: tuple[int, int], centre: tuple[float, float]) -> Image.Image:
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return ImageOps.fit(rgb, size, Image.Resampling.LANCZOS, centering=centre)
