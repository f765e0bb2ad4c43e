"""Weights & Biases: one run a job, gone on with by its id.

The library reads its API key from WANDB_API_KEY in the training worker's environment, or from where `wandb login` put
it; no setting of ours has it, so that none of ours can leak it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import wandb
from PIL import Image

from flows.training.tracking.protocol import TrackedJob, Tracker, TrackerKind
from storage.settings import Settings

STEP = "step"
"""The axis of every chart. The library's own counter only grows, and drops what an attempt repeats."""


class WeightsAndBiases:
    """One run."""

    def __init__(self, settings: Settings, job: TrackedJob) -> None:
        # It makes a folder `wandb` there; its own logs would go to the user's home.
        folder = settings.data_folder
        os.environ.setdefault("WANDB_CACHE_DIR", str(folder / "wandb" / "cache"))
        self._run: Any = wandb.init(
            project=settings.tracking.wandb_project,
            id=str(job.id),
            name=job.name,
            resume="allow",
            mode=settings.tracking.wandb_mode,
            dir=str(folder),
            config={**job.parameters, "tags": dict(job.tags)},
            # Of what the library collects by itself, only what says nothing of this machine but its load: no output,
            # no code, no repository, no command line, no name of host or user.
            settings=wandb.Settings(
                console="off",
                host="",
                disable_code=True,
                disable_git=True,
                save_code=False,
                x_disable_meta=True,
                x_save_requirements=False,
                silent=True,
            ),
        )
        self._run.define_metric(STEP)
        self._run.define_metric("*", step_metric=STEP)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A row of the run's history."""
        self._run.log({STEP: step, **values})

    def image(self, key: str, step: int, png: bytes) -> None:
        """An image of the run's history."""
        with Image.open(io.BytesIO(png)) as picture:
            self._run.log({STEP: step, key: wandb.Image(picture)})

    def flush(self) -> None:
        """Nothing: the library's own process has what it was given."""

    def end(self, status: str) -> None:
        """Finish the run; one that goes on is shown as preempted until then."""
        if status == "RUNNING":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if status == "FINISHED" else 1)
        # Its process writes the last of the file only as it ends, which may be behind the end of this one.
        wandb.teardown()


class WeightsAndBiasesKind:
    """The tracker `wandb`."""

    def begin(self, settings: Settings, job: TrackedJob, step: int) -> Tracker:
        """See protocol.py."""
        return WeightsAndBiases(settings, job)


TRACKER: TrackerKind = WeightsAndBiasesKind()
