"""Steps are timed by themselves, and what happens between them apart."""

from __future__ import annotations

from flows.training.tracking.step_pace import StepPace


def test_a_step_is_the_median_and_a_pause_the_mean() -> None:
    moments = iter([10.0, 13.0, 15.0, 19.0])
    pace = StepPace(lambda: next(moments))
    assert (pace.steps, pace.step_seconds, pace.pause_seconds) == (0, 0.0, 0.0)
    # The first warms up; a checkpoint of one second is behind the second, a sample of two behind the third.
    for seconds in (8.0, 2.0, 2.0, 2.0):
        pace.stepped(seconds)
    assert (pace.steps, pace.step_seconds) == (4, 2.0)
    assert pace.pause_seconds == (1.0 + 0.0 + 2.0) / 3


def test_the_first_step_counts_only_while_it_is_the_only_one() -> None:
    pace = StepPace(lambda: 0.0)
    pace.stepped(60.0)
    assert pace.step_seconds == 60.0
    for seconds in (2.0, 4.0):
        pace.stepped(seconds)
    assert pace.step_seconds == 3.0
