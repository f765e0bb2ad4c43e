"""Photos as pixels of a shape: resized to cover it, cropped, perhaps flipped; never squashed."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

MIDDLE = (0.5, 0.5)


def pixels_of(
    image: Image.Image, size: tuple[int, int], centre: tuple[float, float] = MIDDLE, *, flipped: bool = False
) -> Tensor:
    """RGB pixels (3, H, W) in [-1, 1] of `size` (width, height), resized to cover it (Lanczos) and cropped.

    centre: where the crop lies in what is too much, each part from 0 (left, top) to 1 (right, bottom).
    """
    fitted = ImageOps.fit(image.convert("RGB"), size, Image.Resampling.LANCZOS, centering=centre)
    if flipped:
        fitted = ImageOps.mirror(fitted)
    array = np.asarray(fitted, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()
