"""A backend that fails three times in a row is left alone for a while, then tried once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage.records.generation.circuits import FAILURES, LONGEST_OPEN_SECONDS, CircuitState, circuit_of, open_seconds

FAILED_AT = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("failures", "seconds", "state"),
    [
        (0, 0.0, CircuitState.CLOSED),
        (FAILURES - 1, 0.0, CircuitState.CLOSED),
        (FAILURES, 14.9, CircuitState.OPEN),
        (FAILURES, 15.0, CircuitState.HALF_OPEN),
        (FAILURES + 1, 29.0, CircuitState.OPEN),
        (FAILURES + 1, 30.0, CircuitState.HALF_OPEN),
        (FAILURES, -3600.0, CircuitState.HALF_OPEN),
    ],
)
def test_its_state_goes_by_failures_and_time(failures: int, seconds: float, state: CircuitState) -> None:
    assert circuit_of(failures, FAILED_AT, FAILED_AT + timedelta(seconds=seconds)) is state


def test_it_is_left_alone_for_minutes_at_most_however_often_it_failed() -> None:
    assert open_seconds(10_000) == LONGEST_OPEN_SECONDS


def test_one_that_never_failed_is_asked() -> None:
    assert circuit_of(0, None, FAILED_AT) is CircuitState.CLOSED
