"""A job in which nothing is done fails by name, whatever its process hangs in; what gets on is left alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from flows.jobs import stalls
from flows.jobs.lifecycle import running_job
from flows.jobs.stalls import StallLimit, stall_of, stopped_when_stalled
from flows.runs.liveness import advanced
from storage.blobs.store import CHUNK
from storage.errors import JobStalled
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import JobState, Progress
from storage.settings import Settings
from storage.stores import Stores, open_stores
from tests.storage.makers import a_job
from tests.warm import run_warm

AT = Progress(phase="fit", step=3, total=8)


def not_called(error: JobStalled) -> None:
    """What is to be done only when the main thread does not respond."""
    raise AssertionError("the process would have left")


def limit(seconds: float, give_up: Callable[[JobStalled], None] = not_called) -> StallLimit:
    return StallLimit(seconds, lambda: AT, give_up)


def wait_for_an_event() -> None:
    """As a data loader whose workers are gone."""
    threading.Event().wait()


def wait_for_a_lock() -> None:
    """One that is held already."""
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@pytest.mark.parametrize("wait", [wait_for_an_event, wait_for_a_lock, partial(time.sleep, 60)])
def test_what_waits_for_ever_is_stopped_and_says_where(
    wait: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pytest.raises(JobStalled, match=r"phase 'fit' after 3 of 8, since \d{4}-.*Retry the job"),
        stopped_when_stalled(limit(0.3)),
    ):
        wait()
    assert "in test_what_waits_for_ever_is_stopped_and_says_where" in caplog.text, "the stacks are logged"


def test_what_is_slow_and_gets_on_is_left_alone() -> None:
    with stopped_when_stalled(limit(0.4)):
        for _ in range(10):
            time.sleep(0.1)
            advanced()


def test_a_transfer_that_is_slow_and_gets_on_is_left_alone(settings: Settings) -> None:
    def slowly() -> Iterator[bytes]:
        for number in range(10):
            time.sleep(0.1)
            yield bytes([number]) * CHUNK

    with open_stores(settings, advanced) as stores, stopped_when_stalled(limit(0.4)):
        blob = stores.blobs.put_stream(slowly())
    assert blob.size == 10 * CHUNK


def test_a_process_that_got_no_time_to_run_has_not_stalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after SIGSTOP, or a machine that was paused with its clock running on."""
    began = time.monotonic()

    def leaping() -> float:
        now = time.monotonic() - began
        return now if now < 0.15 else now + 1000

    monkeypatch.setattr(stalls, "time", type("Clock", (), {"monotonic": staticmethod(leaping)}))
    with stopped_when_stalled(limit(2.0)):
        time.sleep(1.0)


def test_the_reason_names_the_phase_without_steps_and_the_setting() -> None:
    text = str(stall_of(Progress(phase="export"), 1805, 1800))
    assert "for 30 minutes in the phase 'export', since" in text
    assert "DARKROOM_JOBS__STALL_MINUTES" in text


def test_a_stalled_job_has_failed_and_can_be_retried(stores: Stores) -> None:
    stores.settings.jobs.stall_minutes = 0.5 / 60
    job = a_job(stores.database)
    with running_job(stores, job.id, 1) as running:
        running.report("fit", 3, 8)
        threading.Event().wait()
    row = stores.database.run(jobs.get(job.id))
    assert (row.state, row.failure_code) == (JobState.FAILED, "stalled")
    assert running.outcome.is_failed()
    assert running.outcome.message == f"stalled: {row.failure_reason}"


def test_an_ending_may_take_longer_than_the_grace_to_receive_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a run in MLflow that takes a minute to end."""
    monkeypatch.setattr(stalls, "GRACE_SECONDS", 0.2)
    left: list[JobStalled] = []
    monkeypatch.setattr("os._exit", lambda status: None)
    with pytest.raises(JobStalled), stopped_when_stalled(limit(0.3, left.append)):
        try:
            threading.Event().wait()
        finally:
            time.sleep(1.0)
    assert left == []


def test_an_ending_that_hangs_as_well_ends_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "ENDING_SECONDS", 0.4)
    left: list[JobStalled] = []
    monkeypatch.setattr("os._exit", lambda status: None)
    with pytest.raises(JobStalled), stopped_when_stalled(limit(0.3, left.append)):
        try:
            threading.Event().wait()
        finally:
            for _ in range(8):
                time.sleep(0.1)
                advanced()
            assert left == [], "signs of progress go on"
            time.sleep(1.0)
    assert len(left) == 1


NATIVE = """
import ctypes, sys
from uuid import UUID
from flows.jobs import stalls
from flows.jobs.lifecycle import running_job
from storage.settings import load_settings
from storage.stores import open_stores

stalls.GRACE_SECONDS = stalls.LOCK_SECONDS = 1.0
library = getattr(ctypes, sys.argv[2])(None)
mutex = ctypes.create_string_buffer(64)  # zeros: a mutex of pthreads that is free
with open_stores(load_settings()) as stores, running_job(stores, UUID(sys.argv[1]), 1) as job:
    job.report("fit", 3, 8)
    library.pthread_mutex_lock(mutex)
    library.pthread_mutex_lock(mutex)  # waits for itself, and no signal ends that
"""


@pytest.mark.parametrize("library", ["CDLL", "PyDLL"], ids=["others may run", "Python's lock held"])
def test_native_code_that_hangs_ends_the_process(
    stores: Stores, environment: dict[str, str], settings: Settings, library: str
) -> None:
    job = a_job(stores.database)
    variables = {**environment, "DARKROOM_JOBS__STALL_MINUTES": "0.02"}
    ended = run_warm(NATIVE, str(job.id), library, environment=variables, seconds=60)
    assert 'File "<string>", line 15 in <module>' in ended.stderr, ended.stderr[-2000:]
    row = stores.database.run(jobs.get(job.id))
    if library == "CDLL":
        assert ended.returncode == stalls.EXIT_STATUS
        assert (row.state, row.failure_code) == (JobState.FAILED, "stalled")
    else:
        # No thread of Python's has run since: the relay finds the job silent.
        assert (ended.returncode, row.state) == (1, JobState.RUNNING)
        time.sleep(1.1)
        [again] = stores.database.run(jobs.sweep_silent(silent_after_seconds=1.0, max_silent_attempts=3))
        assert again.state is JobState.SUBMITTED
