"""The time of a job is that of its steps and of what comes before and after them."""

from __future__ import annotations

import msgspec

from storage.records.jobs.costs.paces import DevicePace, pace_on
from storage.records.jobs.jobs import Progress
from tests.flows.training.tiny import recipe

PACE = DevicePace(device="cpu", jobs=3, step_seconds=1.5, pause_seconds=0.5, before_seconds=30.0, after_seconds=6.0)


def test_the_steps_are_not_all_of_a_job() -> None:
    assert (PACE.seconds_per_step, PACE.other_seconds) == (2.0, 36.0)
    assert (PACE.seconds(recipe(steps=10)), PACE.seconds(recipe(steps=100))) == (56.0, 236.0)
    assert PACE.seconds(recipe(steps=100, chosen_step=40)) == 36.0, "a chosen checkpoint is published as it is"


def test_what_is_left_depends_on_the_phase() -> None:
    wanted = recipe(steps=10)
    for progress, seconds in (
        (None, 56.0),
        (Progress(phase="regularize", step=3, total=9), 56.0),
        (Progress(phase="fit", step=4, total=10), 6.0 + 12.0),
        (Progress(phase="fit", step=10, total=10), 6.0),
        (Progress(phase="evaluate", step=1, total=9), 6.0),
    ):
        assert PACE.seconds_left(wanted, progress) == seconds, progress


def test_a_device_without_a_pace_takes_that_of_most_jobs() -> None:
    card = msgspec.structs.replace(PACE, device="a card", jobs=1)
    assert pace_on([PACE, card], "a card") is card
    assert pace_on([PACE, card], "") is PACE
    assert pace_on([], "cpu") is None
