"""Files as they are after a while, and what is in them."""

from __future__ import annotations

import os
import time
from pathlib import Path

from PIL import Image


def unused_for(path: Path, seconds: float) -> None:
    """Date a file or folder back: it looks as if nothing had touched it for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of an image, in pixels."""
    with Image.open(path) as image:
        return image.size
