"""Failed things are tried again ever more slowly, for as long as there is patience; other errors are raised at once."""

from __future__ import annotations

import logging
import time
import warnings
from itertools import pairwise

import pytest
from prometheus_client import REGISTRY

from storage.backoff import pause_after, retried
from storage.errors import PostgresUnavailable, StoreUnavailable


class Flaky:
    """Fails so many times, then works."""

    def __init__(self, failures: int, error: Exception) -> None:
        self._failures, self._error = failures, error
        self.tries: list[float] = []

    def __call__(self) -> str:
        self.tries.append(time.monotonic())
        if len(self.tries) <= self._failures:
            raise self._error
        return "works"


def test_a_call_is_repeated_ever_more_slowly_and_its_reason_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    flaky = Flaky(3, PostgresUnavailable("Postgres does not respond."))
    with caplog.at_level(logging.WARNING, "darkroom.retries"):
        assert retried(flaky, StoreUnavailable, patience_seconds=10, first_seconds=0.05) == "works"
    pauses = [after - before for before, after in pairwise(flaky.tries)]
    assert all(pause >= least for pause, least in zip(pauses, (0.05, 0.1, 0.2), strict=True)), pauses
    assert [record.name for record in caplog.records] == ["darkroom.retries"] * 3
    assert all(record.getMessage().endswith("Postgres does not respond.") for record in caplog.records)
    assert caplog.records[2].getMessage().startswith("try 3 failed, again in 0.2 s: postgres_unavailable: ")
    assert "stamina_retries_total" not in {metric.name for metric in REGISTRY.collect()}


def test_the_last_error_is_raised_when_patience_or_tries_are_at_an_end() -> None:
    hopeless = Flaky(1000, PostgresUnavailable("gone"))
    with pytest.raises(PostgresUnavailable, match="gone"):
        retried(hopeless, StoreUnavailable, patience_seconds=0.2, first_seconds=0.05, longest_seconds=0.1)
    assert 2 <= len(hopeless.tries) <= 5
    counted = Flaky(1000, PostgresUnavailable("gone"))
    with pytest.raises(PostgresUnavailable, match="gone"):
        retried(counted, StoreUnavailable, patience_seconds=None, attempts=3, first_seconds=0.01)
    assert len(counted.tries) == 3


@pytest.mark.parametrize("patience_seconds", [0.0, -1.0])
def test_without_patience_there_is_one_try(patience_seconds: float) -> None:
    flaky = Flaky(1, PostgresUnavailable("gone"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(PostgresUnavailable):
            retried(flaky, StoreUnavailable, patience_seconds=patience_seconds)
    assert len(flaky.tries) == 1


@pytest.mark.parametrize("error", [ValueError("ours"), KeyboardInterrupt()])
def test_what_waiting_does_not_mend_is_raised_at_once(error: Exception) -> None:
    flaky = Flaky(1, error)
    with pytest.raises(type(error)):
        retried(flaky, lambda error: isinstance(error, StoreUnavailable), patience_seconds=5)
    assert len(flaky.tries) == 1


def test_a_check_ends_the_waiting() -> None:
    hopeless = Flaky(1000, PostgresUnavailable("gone"))

    def check() -> None:
        if len(hopeless.tries) == 2:
            raise RuntimeError("the job was cancelled")

    with pytest.raises(RuntimeError, match="cancelled"):
        retried(hopeless, StoreUnavailable, patience_seconds=5, first_seconds=0.01, check=check)


def test_pauses_double_up_to_the_longest() -> None:
    assert [pause_after(failures, 1.0, 15.0) for failures in (1, 2, 3, 4, 5, 6)] == [1, 2, 4, 8, 15, 15]
    assert pause_after(10**6, 0.2, 5.0) == 5.0
