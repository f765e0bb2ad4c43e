"""How an engine ends when it is asked to."""

from __future__ import annotations

import signal
import threading

import pytest

from flows.generation.engine import stop_signals
from flows.generation.engine.stop_signals import StopSignals


class Process:
    """What is done to it instead of ending it."""

    def __init__(self) -> None:
        self.stops, self.statuses = 0, list[int]()
        self.left = threading.Event()

    def stop(self) -> None:
        self.stops += 1

    def leave(self, status: int) -> None:
        self.statuses.append(status)
        self.left.set()


@pytest.fixture
def process() -> Process:
    return Process()


def test_the_first_signal_stops_the_engine_and_the_second_ends_the_process(process: Process) -> None:
    signals = StopSignals(process.stop, leave=process.leave)

    signals.received(signal.SIGTERM)
    assert (process.stops, process.statuses) == (1, [])
    signals.received(signal.SIGTERM)

    assert (process.stops, process.statuses) == (1, [143])


def test_a_call_that_does_not_end_is_waited_for_only_so_long(process: Process) -> None:
    StopSignals(process.stop, seconds=0.01, leave=process.leave).received(signal.SIGINT)

    assert process.left.wait(10)
    assert process.statuses == [130]


def test_both_signals_are_received(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    found = dict[int, object]()
    monkeypatch.setattr(signal, "signal", found.__setitem__)
    signals = StopSignals(process.stop, leave=process.leave)

    signals.install()

    assert found == {signal.SIGTERM: signals.received, signal.SIGINT: signals.received}


@pytest.mark.parametrize(("loads_for_ever", "statuses"), [(True, [7]), (False, [])])
def test_a_loader_is_waited_for_only_so_long(
    process: Process, monkeypatch: pytest.MonkeyPatch, loads_for_ever: bool, statuses: list[int]
) -> None:
    monkeypatch.setattr(stop_signals, "LOADER_SECONDS", 0.05 if loads_for_ever else 10.0)
    done = threading.Event()
    loader = threading.Thread(target=done.wait, args=(10 if loads_for_ever else 0.05,), name="load-model")
    loader.start()

    StopSignals(process.stop, leave=process.leave).ended(7)

    assert process.statuses == statuses
    done.set()
    loader.join(10)
