"""How fast earlier trainings were, and what that says of another one: the one arithmetic of time."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from storage.records.jobs.jobs import Progress, Stage
from storage.records.jobs.training import TrainingRecipe

_AFTER = (Stage.EVALUATE.value, Stage.EXPORT.value, Stage.PUBLISH.value)


class DevicePace(msgspec.Struct, frozen=True, kw_only=True):
    """Medians in seconds over `jobs` jobs on a device.

    step_seconds: of an optimizer step. pause_seconds: between two steps, for checkpoints, samples and validation.
    before_seconds: class images, loading, encoding. after_seconds: evaluation and export.
    """

    device: str
    jobs: int
    step_seconds: float
    pause_seconds: float
    before_seconds: float
    after_seconds: float

    @property
    def seconds_per_step(self) -> float:
        """From a step to the next."""
        return self.step_seconds + self.pause_seconds

    @property
    def other_seconds(self) -> float:
        """What does not depend on the number of steps."""
        return self.before_seconds + self.after_seconds

    def seconds(self, recipe: TrainingRecipe) -> float:
        """Of a whole job of this recipe."""
        return self.other_seconds + self.seconds_per_step * _steps(recipe)

    def seconds_left(self, recipe: TrainingRecipe, progress: Progress | None) -> float:
        """Of a job that is so far."""
        if progress is not None and progress.phase in _AFTER:
            return self.after_seconds
        if progress is not None and progress.phase == Stage.FIT.value:
            left = max(0, _steps(recipe) - progress.step)
            return self.after_seconds + self.seconds_per_step * left
        return self.seconds(recipe)


def pace_on(paces: Sequence[DevicePace], device: str) -> DevicePace | None:
    """The pace on a device; where that is not known yet, on the one that most jobs ran on."""
    return next((pace for pace in paces if pace.device == device), paces[0] if paces else None)


def _steps(recipe: TrainingRecipe) -> int:
    # A checkpoint that was chosen is published as it is.
    return 0 if recipe.chosen_step else recipe.steps
