from __future__ import annotations

import math

import pytest

from storage.errors import InvalidRequest
from storage.records.generation.scheduler_limits import check_scheduler, first_step, unet_calls
from storage.records.generation.schedulers import SchedulerSettings

HEUN, PLMS, DDIM = (SchedulerSettings(name=name) for name in ("heun", "pndm", "ddim"))


@pytest.mark.parametrize(
    ("settings", "steps", "field", "reason"),
    [
        (SchedulerSettings(name="dpm_fast"), 20, "scheduler", "docs/reference/schedulers.md"),
        (SchedulerSettings(spacing="karras"), 20, "spacing", "DDIM does not take 'karras'; it takes normal, trailing"),
        (SchedulerSettings(name="heun", eta=0.5), 20, "eta", "leave it out, or ask for one of: DDIM, TCD"),
        (SchedulerSettings(eta=1.5), 20, "eta", "not between 0 and 1"),
        (SchedulerSettings(eta=math.nan), 20, "eta", "not between 0 and 1"),
        (SchedulerSettings(name="lcm"), 51, "steps", "50, which LCM takes at most"),
        (SchedulerSettings(name="deis"), 1, "steps", "2, which DEIS needs at least"),
        (DDIM, 0, "steps", "1, which DDIM needs at least"),
    ],
)
def test_what_is_not_taken_is_refused_by_field(settings: SchedulerSettings, steps: int, field: str, reason: str):
    with pytest.raises(InvalidRequest) as refused:
        check_scheduler(settings, steps)
    assert list(refused.value.fields) == [field]
    assert reason in refused.value.fields[field]


def test_everything_that_is_wrong_is_said_at_once():
    with pytest.raises(InvalidRequest) as refused:
        check_scheduler(SchedulerSettings(name="lcm", spacing="karras", eta=1.0), 60)
    assert list(refused.value.fields) == ["spacing", "eta", "steps"]


@pytest.mark.parametrize(
    ("settings", "steps", "strength", "calls"),
    [
        (DDIM, 25, 1.0, 25),
        (DDIM, 25, 0.5, 12),
        (HEUN, 25, 1.0, 49),
        (HEUN, 20, 0.25, 9),
        (HEUN, 1, 1.0, 1),
        (PLMS, 25, 1.0, 26),
        (PLMS, 20, 0.1, 3),
        (PLMS, 20, 0.05, 1),
    ],
)
def test_calls_are_counted_as_the_solver_makes_them(settings: SchedulerSettings, steps: int, strength: float, calls):
    assert unet_calls(settings, steps, strength) == calls


def test_a_strength_that_leaves_no_step_is_refused_with_one_that_does():
    with pytest.raises(InvalidRequest, match=r"strength: 0\.04 of 20 steps leaves none to draw; ask for 0\.06 or more"):
        unet_calls(DDIM, 20, 0.04)
    assert first_step(20, 0.06) == 19
    assert first_step(20) == 0
    for steps in range(1, 201):
        with pytest.raises(InvalidRequest) as refused:
            first_step(steps, 0.0)
        offered = float(refused.value.fields["strength"].split("ask for ")[1].split()[0])
        assert first_step(steps, offered) == max(steps - int(steps * offered), 0) <= steps - 1
