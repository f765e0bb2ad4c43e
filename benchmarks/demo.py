"""How long `darkroom demo` takes, from the command to the picture grid: on an empty data folder, then once more.

    python -m benchmarks.demo                SIZE=full for three more runs

The install is not in it. Every run trains again with a new subject, key and seed; a later one finds the platform
running and may use the regularization images and the base model's floor of an earlier one. The goals are 10 minutes
(the install included) and 3.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median

from tests.deployments.platform import Platform

MORE = 3 if os.environ.get("SIZE") == "full" else 1
FIRST_GOAL_SECONDS, NEXT_GOAL_SECONDS = 600.0, 180.0


def demo(platform: Platform) -> float:
    """Seconds of one demo. Raises RuntimeError when it does not end well."""
    began = time.monotonic()
    run = platform.cli("demo", timeout=1_200)
    if run.returncode:
        raise RuntimeError(run.stdout + run.stderr)
    return time.monotonic() - began


def main() -> None:
    """Run the demos and print the figures."""
    platform = Platform(Path(tempfile.mkdtemp(prefix="dr-")), {"OMP_NUM_THREADS": str(os.cpu_count() or 1)})
    try:
        first = demo(platform)
        following = [demo(platform) for _ in range(MORE)]
    finally:
        platform.kill_everything()
        shutil.rmtree(platform.folder, ignore_errors=True)
    print(f"first {first:.0f} s; then " + ", ".join(f"{seconds:.0f} s" for seconds in following))
    for figure, ours, goal in (
        ("first_demo_s", first, FIRST_GOAL_SECONDS),
        ("next_demo_s", median(following), NEXT_GOAL_SECONDS),
    ):
        print(f"figure {figure} {ours:.0f} {goal:.0f} {ours / goal:.2f} goal <=1")


if __name__ == "__main__":
    main()
