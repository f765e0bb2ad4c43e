"""Circuits open, let one drawing try, and close; rows show them, and the next process knows them."""

from __future__ import annotations

import threading
from typing import TypeVar

import pytest

from flows.generation.backends.health import BackendHealth
from flows.generation.backends.protocol import BackendFacts
from storage.errors import BackendBroken, BackendUnavailable, PostgresUnavailable
from storage.postgres.connection import Database, Runnable
from storage.postgres.generation import backends
from storage.records.generation.circuits import (
    FAILURES,
    LONGEST_OPEN_SECONDS,
    OPEN_SECONDS,
    BackendFault,
    BackendRow,
    CircuitState,
)
from storage.stores import Stores

T = TypeVar("T")
FACTS = BackendFacts(version="1.0", capabilities={"operations": ["txt2img"]})
SILENT, BROKEN = BackendUnavailable("It does not respond."), BackendBroken("It is no picture.")


class Clock:
    """A time that a test moves."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time

    def forward(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(stores: Stores, clock: Clock) -> BackendHealth:
    return BackendHealth(stores.database, ["one", "two"], clock)


def fail(health: BackendHealth, times: int = FAILURES, error: Exception = SILENT) -> None:
    """Drawings one after the other, of which none gets a picture."""
    for _ in range(times):
        visit = health.visit("one", 1)
        assert visit is not None
        with visit:
            visit.failed(error, unheard=error is SILENT)


def row_of(stores: Stores, name: str = "one") -> BackendRow:
    [row] = [row for row in stores.database.run(backends.list_all) if row.name == name]
    return row


def test_failures_in_a_row_open_the_circuit_and_the_row_says_why(stores: Stores, health: BackendHealth) -> None:
    fail(health, FAILURES - 1)
    assert health.circuit("one") is CircuitState.CLOSED
    fail(health, 1, BROKEN)

    assert health.circuit("one") is CircuitState.OPEN
    assert health.visit("one", 1) is None
    assert health.circuit("two") is CircuitState.CLOSED
    row = row_of(stores)
    assert (row.failures, row.reason) == (FAILURES, BackendFault.DRAWING_FAILED)


def test_one_drawing_tries_and_its_first_picture_closes_the_circuit(
    stores: Stores, health: BackendHealth, clock: Clock
) -> None:
    fail(health)
    clock.forward(OPEN_SECONDS)
    trial = health.visit("one", 2)
    assert trial is not None
    assert health.visit("one", 1) is None, "one is enough"
    with trial:
        trial.drawn()
        assert health.circuit("one") is CircuitState.CLOSED
        assert health.visit("one", 1) is not None
    assert row_of(stores).failures == 0


def test_the_first_step_of_a_try_lets_others_in_and_a_failure_keeps_them_out_again(
    health: BackendHealth, clock: Clock
) -> None:
    fail(health)
    clock.forward(OPEN_SECONDS)
    trial = health.visit("one", 1)
    assert trial is not None
    with trial:
        trial.heard()
        other = health.visit("one", 1)
        assert other is not None, "a picture may take minutes"
        with other:
            other.failed(SILENT, unheard=True)
        trial.heard()
    clock.forward(OPEN_SECONDS)
    assert health.circuit("one") is CircuitState.OPEN, "one failure more than before the try"


def test_a_try_that_fails_doubles_the_pause_to_a_limit(health: BackendHealth, clock: Clock) -> None:
    fail(health)
    clock.forward(OPEN_SECONDS)
    fail(health, 1)
    clock.forward(OPEN_SECONDS)
    assert health.circuit("one") is CircuitState.OPEN
    clock.forward(OPEN_SECONDS)
    for _ in range(10):
        clock.forward(LONGEST_OPEN_SECONDS)
        fail(health, 1)
    clock.forward(LONGEST_OPEN_SECONDS)
    assert health.circuit("one") is CircuitState.HALF_OPEN


def test_a_try_that_ends_in_neither_way_lets_the_next_one_try(health: BackendHealth, clock: Clock) -> None:
    fail(health)
    clock.forward(OPEN_SECONDS)
    for _ in range(2):
        trial = health.visit("one", 1)
        assert trial is not None
        with trial:
            pass
    assert health.circuit("one") is CircuitState.HALF_OPEN


def test_drawings_that_lose_one_server_at_once_count_once(stores: Stores, health: BackendHealth) -> None:
    visits = [visit for visit in (health.visit("one", 1) for _ in range(FAILURES + 2)) if visit is not None]
    for visit in visits:
        with visit:
            visit.failed(SILENT, unheard=True)

    assert health.circuit("one") is CircuitState.CLOSED
    assert row_of(stores).failures == 1


def test_a_picture_of_another_drawing_ends_the_row_of_failures(health: BackendHealth) -> None:
    fail(health, FAILURES - 1)
    good = health.visit("one", 1)
    assert good is not None
    with good:
        good.drawn()
    fail(health, FAILURES - 1)

    assert health.circuit("one") is CircuitState.CLOSED


def test_one_that_responds_again_is_tried_before_its_time_unless_it_broke_pictures(health: BackendHealth) -> None:
    fail(health)
    health.looked("one", FACTS)
    assert health.circuit("one") is CircuitState.HALF_OPEN
    fail(health, 1, BROKEN)
    health.looked("one", FACTS)
    assert health.circuit("one") is CircuitState.OPEN


def test_the_next_process_knows_the_circuit(stores: Stores, health: BackendHealth, clock: Clock) -> None:
    fail(health)
    later = BackendHealth(stores.database, ["one", "two"], clock)
    later.read()

    assert later.circuit("one") is CircuitState.OPEN
    assert later.reason("one") == "It did not respond to an earlier run."
    clock.forward(OPEN_SECONDS + 5)
    assert later.circuit("one") is CircuitState.HALF_OPEN


def test_rows_have_facts_and_load_and_go_with_their_setting(stores: Stores, health: BackendHealth) -> None:
    stores.database.run(backends.looked("old", "0.9", {}))
    visit = health.visit("one", 3)
    health.looked("one", FACTS)
    health.write()

    row = row_of(stores)
    assert (row.version, row.capabilities, row.drawing) == ("1.0", FACTS.capabilities, 1)
    assert row.responded_at is not None
    assert [one.name for one in stores.database.run(backends.list_all)] == ["one", "two"]
    assert row_of(stores, "two").responded_at is None
    assert visit is not None
    health.end()
    assert row_of(stores).drawing == 0


class UnreliableDatabase(Database):
    """One that is unavailable while the test says so."""

    down = False

    def run(self, script: Runnable[T]) -> T:
        if self.down:
            raise PostgresUnavailable("It is down.")
        return super().run(script)


def test_without_postgres_circuits_work_and_a_success_is_written_later(stores: Stores, clock: Clock) -> None:
    with UnreliableDatabase(stores.settings.postgres) as database:
        health = BackendHealth(database, ["one"], clock)
        fail(health)
        clock.forward(OPEN_SECONDS)
        database.down = True
        health.read()
        health.write()
        visit = health.visit("one", 1)
        assert visit is not None
        with visit:
            visit.drawn()
        assert health.circuit("one") is CircuitState.CLOSED
        database.down = False
        assert row_of(stores).failures == FAILURES
        health.looked("one", FACTS)
        assert row_of(stores).failures == 0


def test_threads_keep_the_counts_right(health: BackendHealth) -> None:
    def draw() -> None:
        for _ in range(200):
            visit = health.visit("two", 2)
            assert visit is not None
            with visit:
                visit.drawn()

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (health.load("two"), health.drawings("two")) == (0, 0)
