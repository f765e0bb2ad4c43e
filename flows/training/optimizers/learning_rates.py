"""The learning-rate schedules: each group's rate as a function of the recipe and the step, so no state is kept.

All but `ramp` equal diffusers' (its `optimization` module) at every step, with its numbering: step 0 is the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from torch.optim import Optimizer

from flows.training.methods.protocol import ParameterGroup
from storage.records.jobs.choices import LearningRateSchedule, check_choice
from storage.records.jobs.optimization import POLYNOMIAL_END, piecewise_rules
from storage.records.jobs.training import TrainingRecipe


def set_learning_rates(
    optimizer: Optimizer, groups: Sequence[ParameterGroup], recipe: TrainingRecipe, step: int
) -> None:
    """Each group's rate at `step` (from 0)."""
    factor = rate_factor(recipe, step)
    for settings, group in zip(optimizer.param_groups, groups, strict=True):
        settings["lr"] = group.learning_rate * factor


def used_rates(optimizer: Optimizer, groups: Sequence[ParameterGroup]) -> dict[str, float]:
    """The rate of each group's last step by the group's name; of Prodigy, times what it has found."""
    return {
        group.name: float(settings["lr"] * settings.get("d", 1.0))
        for settings, group in zip(optimizer.param_groups, groups, strict=True)
    }


def rate_factor(recipe: TrainingRecipe, step: int) -> float:
    """The part of its learning rate that each group uses at `step` (from 0). Raises InvalidRequest for a schedule that
    this release does not know."""
    check_choice(LearningRateSchedule, "learningRateSchedule", recipe.learning_rate_schedule)
    return _SCHEDULES[LearningRateSchedule(recipe.learning_rate_schedule)](recipe, step)


def _ramp(recipe: TrainingRecipe, step: int) -> float:
    # From the first step on something is learned: diffusers' warm-up begins with a step of rate 0.
    return min(1.0, (step + 1) / recipe.warm_up_steps) if recipe.warm_up_steps else 1.0


def _constant(recipe: TrainingRecipe, step: int) -> float:
    return 1.0


def _warmed_up(fall: Callable[[TrainingRecipe, int], float]) -> Callable[[TrainingRecipe, int], float]:
    def factor(recipe: TrainingRecipe, step: int) -> float:
        if step < recipe.warm_up_steps:
            return step / recipe.warm_up_steps
        return fall(recipe, step)

    return factor


def _done(recipe: TrainingRecipe, step: int) -> float:
    """The part of the steps after the warm-up that lies behind."""
    return (step - recipe.warm_up_steps) / max(1, recipe.steps - recipe.warm_up_steps)


def _linear(recipe: TrainingRecipe, step: int) -> float:
    return max(0.0, (recipe.steps - step) / max(1, recipe.steps - recipe.warm_up_steps))


def _cosine(recipe: TrainingRecipe, step: int) -> float:
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * _done(recipe, step))))


def _restarts(recipe: TrainingRecipe, step: int) -> float:
    done = _done(recipe, step)
    if done >= 1.0:
        return 0.0
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((recipe.schedule_cycles * done) % 1.0))))


def _polynomial(recipe: TrainingRecipe, step: int) -> float:
    begin = recipe.learning_rate
    if step > recipe.steps:
        return POLYNOMIAL_END / begin
    left = 1 - _done(recipe, step)
    return ((begin - POLYNOMIAL_END) * left**recipe.schedule_power + POLYNOMIAL_END) / begin


def _piecewise(recipe: TrainingRecipe, step: int) -> float:
    rules, rest = piecewise_rules(recipe.schedule_rules)
    return next((factor for before, factor in rules if step < before), rest)


_SCHEDULES: Mapping[LearningRateSchedule, Callable[[TrainingRecipe, int], float]] = {
    LearningRateSchedule.RAMP: _ramp,
    LearningRateSchedule.CONSTANT: _constant,
    LearningRateSchedule.CONSTANT_WITH_WARMUP: _warmed_up(_constant),
    LearningRateSchedule.LINEAR: _warmed_up(_linear),
    LearningRateSchedule.COSINE: _warmed_up(_cosine),
    LearningRateSchedule.COSINE_WITH_RESTARTS: _warmed_up(_restarts),
    LearningRateSchedule.POLYNOMIAL: _warmed_up(_polynomial),
    LearningRateSchedule.PIECEWISE_CONSTANT: _piecewise,
}
