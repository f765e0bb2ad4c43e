"""A worker asks Prefect every second while flow runs may come, and now and then while nothing happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from pydantic import SecretStr

from deployments.local.workers import polling
from deployments.local.workers.polling import ATTENTIVE_SECONDS, IDLE_SECONDS, PollingPace
from storage.settings import PostgresSettings


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends
        time.sleep(0.05)


class Hands:
    """A clock that is set by hand, in seconds."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def questions(self, pace: PollingPace, seconds: int) -> int:
        """How often a loop that comes by every second asks."""
        asked = 0
        for _ in range(seconds):
            self.now += 1.0
            if pace.is_due():
                pace.asked()
                asked += 1
        return asked


def an_idle_pace(clock: Hands) -> PollingPace:
    pace = PollingPace(clock)
    pace.listening = True
    clock.questions(pace, int(ATTENTIVE_SECONDS) + 1)
    return pace


def test_while_nothing_happens_few_questions_are_asked() -> None:
    clock = Hands()
    pace = an_idle_pace(clock)
    assert clock.questions(pace, 60) == 60 / IDLE_SECONDS


def test_after_something_happened_every_second_is_one_and_then_the_pace_falls_again() -> None:
    clock = Hands()
    pace = an_idle_pace(clock)
    pace.wake()
    assert clock.questions(pace, int(ATTENTIVE_SECONDS) - 1) == ATTENTIVE_SECONDS - 1
    clock.questions(pace, 2)
    assert clock.questions(pace, 60) == 60 / IDLE_SECONDS


def test_who_hears_of_nothing_asks_every_second() -> None:
    clock = Hands()
    pace = an_idle_pace(clock)
    pace.listening = False
    assert clock.questions(pace, 60) == 60


@contextmanager
def listening(url: str, pace: PollingPace) -> Iterator[None]:
    with polling.woken_by_events(PostgresSettings(url=SecretStr(url)), pace):
        (listener,) = (thread for thread in threading.enumerate() if thread.name == "outbox listener")
        yield
    listener.join(20)
    assert not listener.is_alive()


@pytest.fixture
def soon_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener that sees after a moment that it should stop."""
    monkeypatch.setattr(polling, "LISTEN_SECONDS", 0.3)


@pytest.mark.usefixtures("soon_stopped")
def test_an_event_that_is_committed_wakes(database_url: str) -> None:
    clock = Hands()
    pace = PollingPace(clock)
    with listening(database_url, pace):
        eventually(lambda: pace.listening)
        clock.questions(pace, int(ATTENTIVE_SECONDS) + 1)
        assert not pace.is_due()
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("notify outbox")
        eventually(pace.is_due)
    assert not pace.listening


@pytest.mark.usefixtures("soon_stopped")
def test_a_connection_that_breaks_is_noticed_and_made_again(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "RECONNECT_SECONDS", 0.1)
    pace = PollingPace(Hands())
    heard = threading.Event()
    with listening(database_url, pace):
        eventually(lambda: pace.listening)
        monkeypatch.setattr(pace, "wake", heard.set)  # it wakes when it listens again
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where query = 'listen outbox'")
        assert heard.wait(20)
        eventually(lambda: pace.listening)
