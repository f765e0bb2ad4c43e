"""Seconds of each training step of a process, as JSON: what `benchmarks.fairness` starts in many ways.

python -m benchmarks.training_steps BASE_MODEL_FOLDER STEPS THREADS
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.training import BATCH, FAMILY, WARM_UP, pictures, recipe, resolution_of
from flows.diffusion.devices import prepare_torch
from flows.diffusion.families.protocol import Components
from flows.training.callbacks import StepReport, Watch
from flows.training.fit import fit
from flows.training.photos.latents import TrainingImages, encode_images
from storage.records.jobs.training import TrainingRecipe


class NoCheckpoints:
    """A checkpoint store for a run that is measured without its checkpoints."""

    owner = "benchmark"

    def keep(self, step: int, file: Path, sha256: str) -> None:
        """Keep nothing."""


def our_steps(components: Components, wanted: TrainingRecipe) -> list[float]:
    """Seconds of each step, from the same reports that a job's metrics come from."""
    latents = encode_images(FAMILY, components, pictures(wanted.resolution), wanted.resolution)
    seconds: list[float] = []

    def note(report: StepReport) -> None:
        seconds.append(2 * BATCH / report.images_per_second)

    with tempfile.TemporaryDirectory() as folder:
        fit(
            wanted,
            FAMILY,
            components,
            TrainingImages(latents, latents),
            recipe_hash=wanted.fingerprint(),
            newest=None,
            checkpoints=NoCheckpoints(),
            work_folder=Path(folder),
            watch=Watch(on_step=note),
        )
    return seconds


def main() -> None:
    """Train and print."""
    if len(sys.argv) != 4:
        print(__doc__)
        return
    folder, steps, threads = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    device = prepare_torch(threads)
    wanted = recipe(steps + WARM_UP, threads, resolution_of(folder))
    print(json.dumps(our_steps(FAMILY.load(folder).to(device), wanted)[WARM_UP:]))


if __name__ == "__main__":
    main()
