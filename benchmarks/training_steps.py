"""Seconds of each training step of a process, as JSON: what `benchmarks.fairness` starts in many ways.

python -m benchmarks.training_steps BASE_MODEL_FOLDER STEPS THREADS
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks import training
from flows.diffusion.devices import prepare_torch


def main() -> None:
    """Train and print."""
    if len(sys.argv) != 4:
        print(__doc__)
        return
    folder, steps, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    device = prepare_torch(threads)
    card = folder / "darkroom.json"
    resolution = json.loads(card.read_text())["resolution"] if card.is_file() else 512
    wanted = training.recipe(steps + training.WARM_UP, threads, resolution)
    seconds = training.our_steps(training.FAMILY.load(folder).to(device), wanted)
    print(json.dumps(seconds[training.WARM_UP :]))


if __name__ == "__main__":
    main()
