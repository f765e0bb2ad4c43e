"""A picture as a backend returns it."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True, kw_only=True)
class DrawnPicture:
    """A picture of a drawing: RGB, its number in it, and the batch shape that it was drawn in (1 where it is unknown).

    seconds: what the device worked for it; 0 where the backend does not say.
    """

    number: int
    image: Image.Image
    shape: int = 1
    seconds: float = 0.0
