"""Named points where a fault test may kill or hold a process. Off unless the settings name one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from storage.settings import Settings


def reach(settings: Settings, point: str) -> None:
    """A point where a fault test may kill this process (`die:FILE`), or hold it until FILE says go (`wait:FILE`).

    A point whose file is there already is passed.
    """
    order = settings.jobs.crash_points.get(point)
    if order is None:
        return
    action, _, name = order.partition(":")
    marker = Path(name)
    try:
        # Made and claimed in one step, so that of several processes exactly one dies here, and its successor does not.
        marker.touch(exist_ok=False)
    except FileExistsError:
        return
    if action == "die":
        # Not `sys.exit`: what is tested is a death in which nothing is tidied up.
        os.kill(os.getpid(), signal.SIGKILL)
    while marker.read_text() != "go":
        time.sleep(0.05)
