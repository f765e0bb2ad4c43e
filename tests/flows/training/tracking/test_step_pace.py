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
