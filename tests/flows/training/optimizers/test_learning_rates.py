"""Our schedules beside diffusers', at every step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.optimization import get_scheduler

from flows.training.optimizers.clipping import clip_gradients
from flows.training.optimizers.learning_rates import rate_factor, set_learning_rates, used_rates
from storage.errors import InvalidRequest
from storage.records.jobs.choices import LearningRateSchedule
from tests.flows.training.optimizers import small
from tests.flows.training.tiny import recipe

RULES = "1:5,0.5:12,0.1"


@pytest.mark.parametrize("warm_up_steps", [0, 1, 7, 40])
@pytest.mark.parametrize("schedule", [name.value for name in LearningRateSchedule if name != "ramp"])
def test_each_schedule_equals_that_of_diffusers_at_every_step(schedule: str, warm_up_steps: int) -> None:
    settings: dict[str, Any] = {"warm_up_steps": warm_up_steps, "schedule_cycles": 3, "schedule_power": 1.5}
    wanted = recipe(steps=23, learning_rate=4e-3, learning_rate_schedule=schedule, schedule_rules=RULES, **settings)
    model = small.Layers()
    groups = small.groups_of(model, wanted.learning_rate)
    ours = torch.optim.SGD([{"params": list(group.parameters.values())} for group in groups], lr=1.0)
    theirs = torch.optim.SGD([{"params": list(group.parameters.values())} for group in groups], lr=4e-3)
    scheduler = get_scheduler(
        schedule,
        theirs,
        step_rules=RULES,
        num_warmup_steps=warm_up_steps,
        num_training_steps=wanted.steps,
        num_cycles=3,
        power=1.5,
    )
    for step in range(wanted.steps):
        set_learning_rates(ours, groups, wanted, step)
        assert [one["lr"] for one in ours.param_groups] == pytest.approx(scheduler.get_last_lr(), rel=1e-12), step
        theirs.step()
        scheduler.step()


def test_the_ramp_learns_from_its_first_step_on() -> None:
    assert [rate_factor(recipe(warm_up_steps=4), step) for step in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    assert rate_factor(recipe(warm_up_steps=0), 0) == 1.0


def test_the_rates_that_were_used_are_reported_by_group() -> None:
    plain, prodigy = small.begin("adamw"), small.begin("prodigy")
    plain.train(3)
    prodigy.train(30)
    found = prodigy.optimizer.param_groups[0]["d"]
    assert found > 1e-6
    assert used_rates(plain.optimizer, plain.groups) == dict.fromkeys(("unet", "text_encoder", "identifier"), 0.0075)
    assert used_rates(prodigy.optimizer, prodigy.groups)["identifier"] == found


def test_a_schedule_of_another_release_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="'spiral' is unknown; known are: ramp"):
        rate_factor(recipe(learning_rate_schedule="spiral"), 0)


@pytest.mark.parametrize("limit", [0.0, 1e-3, 1e3])
def test_gradients_are_clipped_together_and_their_norm_is_that_before(limit: float) -> None:
    model = small.Layers()
    small.gradients(model, 0)
    parameters = list(model.parameters())
    before = torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])
    assert clip_gradients(parameters, limit) == pytest.approx(float(before.norm()), rel=1e-5)
    after = torch.cat([one.grad.flatten() for one in parameters if one.grad is not None])
    expected = float(before.norm()) if limit in (0.0, 1e3) else limit
    assert float(after.norm()) == pytest.approx(expected, rel=1e-3)
