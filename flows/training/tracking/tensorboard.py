"""TensorBoard: event files in a folder of the job, which `tensorboard --logdir` shows."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from torch.utils.tensorboard.writer import SummaryWriter

from flows.training.tracking.protocol import TrackedJob, Tracker, TrackerKind
from storage.settings import Settings

MAX_NAME_BYTES, CUT_NAME_BYTES = 255, 200
"""Bytes of a folder's name that file systems take, and those that a longer name keeps, before the job's id."""


class TensorBoard:
    """One folder a job; each attempt adds a file to it."""

    def __init__(self, folder: Path, job: TrackedJob, step: int) -> None:
        # With it TensorBoard leaves out what an attempt that died had measured behind the checkpoint.
        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(folder), purge_step=purge, flush_secs=10)
        if not step:
            rows = [f"| {name} | {value} |" for name, value in job.parameters.items()]
            self._writer.add_text("recipe", "\n".join(["| | |", "|---|---|", *rows]), 0)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Scalars."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, key: str, step: int, png: bytes) -> None:
        """An image, on a slider of steps."""
        with Image.open(io.BytesIO(png)) as picture:
            self._writer.add_image(key, np.asarray(picture.convert("RGB")), step, dataformats="HWC")

    def flush(self) -> None:
        """Write what the writer's thread still has."""
        self._writer.flush()

    def end(self, status: str) -> None:
        """Close the file."""
        self._writer.close()


class TensorBoardKind:
    """The tracker `tensorboard`."""

    def begin(self, settings: Settings, job: TrackedJob, step: int) -> Tracker:
        """See protocol.py."""
        return TensorBoard(job_folder(settings, job), job, step)


def job_folder(settings: Settings, job: TrackedJob) -> Path:
    """Where a job's event files are: a folder of its name, under the setting's or `tensorboard` in the data folder."""
    folder = settings.tracking.tensorboard_folder or settings.data_folder / "tensorboard"
    name = re.sub(r"[^\w.-]+", "-", job.name)
    if len(name.encode()) > MAX_NAME_BYTES:
        name = f"{name.encode()[:CUT_NAME_BYTES].decode(errors='ignore')}-{job.id}"
    return folder / name


TRACKER: TrackerKind = TensorBoardKind()
