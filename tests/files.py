"""Files as they are after a while."""

from __future__ import annotations

import os
import time
from pathlib import Path


def unused_for(path: Path, seconds: float) -> None:
    """Date a file or folder back: it looks as if nothing had touched it for so long."""
    then = time.time() - seconds
    os.utime(path, (then, then))
