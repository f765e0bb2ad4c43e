"""What happens as a process ends. The one file that registers something for it, or reaches into `atexit`."""

from __future__ import annotations

import atexit
import gc
import sys


def skip_last_collection() -> None:
    """Let this process end without looking for garbage once more.

    With torch, diffusers and MLflow loaded that takes 3 to 4 s of a core, for memory that is released anyway. What is
    frozen is not looked at, so no `__del__` of a cycle runs then, on which nothing may rely in any case.

    Upstream: python/cpython#75739 made `gc.freeze`, and notes that it shortens the end of a process. No issue found
    that asks for a switch which leaves the last collection out (searched 2026-11-29); with one this can go.
    """
    atexit.register(gc.freeze)


def run_exit_hooks() -> None:
    """Run what modules have registered for the end of the process, in a child of `multiprocessing` that was forked.

    Upstream: python/cpython#83856. Such a child leaves by `os._exit`, without them; from Python 3.13 on it runs them
    itself. So this can go when 3.13 is the oldest Python that we support.
    """
    if sys.version_info < (3, 13):
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage] - nothing public runs them before the end
