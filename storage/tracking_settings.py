"""Settings of where trainings show their metrics: DARKROOM_TRACKING__..."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, field_validator

from storage.records.jobs.choices import TrackerName


class TrackingSettings(BaseModel):
    """Where trainings show their metrics and samples while they run, beside MLflow."""

    trackers: str = Field(
        default="",
        description="Trackers beside MLflow, their names separated by commas: `tensorboard`, `wandb`; empty: none.",
    )
    tensorboard_folder: Path | None = Field(
        default=None, description="Folder of TensorBoard's event files, one folder a job; without it DATA/tensorboard."
    )
    wandb_project: str = Field(
        default="darkroom", min_length=1, description="Project of Weights & Biases that runs go into."
    )
    wandb_mode: Literal["online", "offline"] = Field(
        default="online",
        description="`online` needs WANDB_API_KEY or `wandb login`; `offline` writes to DATA/wandb for `wandb sync`.",
    )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the trackers, each once."""
        return tuple(dict.fromkeys(name.strip() for name in self.trackers.split(",") if name.strip()))

    @field_validator("trackers", mode="after")
    @classmethod
    def _known(cls, value: str) -> str:
        unknown = {name.strip() for name in value.split(",") if name.strip()} - set(TrackerName)
        if unknown:
            raise ValueError(f"{', '.join(sorted(unknown))} is no tracker; known are: {', '.join(TrackerName)}")
        return value
