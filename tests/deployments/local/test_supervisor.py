"""The loop that starts, watches and stops the parts, with toy parts that are real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from deployments.local.state import PartState, PlatformRecord, read_record

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts the supervisor of toy_parts with one case; it is gone at the end of the test."""
    started: list[subprocess.Popen[str]] = []

    def run(case: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.deployments.local.toy_parts", str(tmp_path), case],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.terminate()
        process.communicate(timeout=30)


def wait_for(folder: Path, condition: Callable[[PlatformRecord], bool]) -> PlatformRecord:
    """The platform's record as soon as it is as wanted."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        record = read_record(folder)
        if record and condition(record):
            return record
        time.sleep(0.05)
    raise AssertionError(f"never seen; last: {read_record(folder)}")


def pid_of(record: PlatformRecord, part: str) -> int:
    process = record.parts[part].process
    assert process is not None
    return process.pid


def test_a_part_starts_when_all_it_needs_is_healthy(start: Start, tmp_path: Path) -> None:
    start("order")
    wait_for(tmp_path, lambda record: record.parts["once"].state is PartState.DONE)
    waiting = wait_for(tmp_path, lambda record: record.parts["first"].state is PartState.STARTING)
    assert waiting.parts["second"].state is PartState.WAITING

    (tmp_path / "first-is-ready").touch()

    wait_for(tmp_path, lambda record: record.healthy)
    deadline = time.monotonic() + 10
    while (tmp_path / "order").read_text().split() != ["first", "second"]:
        assert time.monotonic() < deadline, (tmp_path / "order").read_text()
        time.sleep(0.05)


def test_a_part_that_dies_is_started_again_and_counted(start: Start, tmp_path: Path) -> None:
    start("plain")
    before = wait_for(tmp_path, lambda record: record.healthy)

    os.kill(pid_of(before, "sleeper"), signal.SIGKILL)

    after = wait_for(tmp_path, lambda record: record.healthy and record.parts["sleeper"].restarts == 1)
    assert pid_of(after, "sleeper") != pid_of(before, "sleeper")
    assert pid_of(after, "other") == pid_of(before, "other")
    assert psutil.Process(pid_of(after, "sleeper")).nice() == 10


def test_a_part_that_dies_again_and_again_is_started_with_growing_pauses(start: Start, tmp_path: Path) -> None:
    process = start("plain")
    for deaths in (1, 2, 3):
        record = wait_for(tmp_path, lambda r, n=deaths: r.healthy and r.parts["sleeper"].restarts == n - 1)
        os.kill(pid_of(record, "sleeper"), signal.SIGKILL)
    wait_for(tmp_path, lambda record: record.healthy and record.parts["sleeper"].restarts == 3)
    process.terminate()

    said, _ = process.communicate(timeout=30)
    pauses = [line.rsplit(" in ", 1)[1] for line in said.splitlines() if "starting it again" in line]
    assert pauses == ["0.5 s", "1 s", "2 s"]


def test_a_part_that_has_ended_runs_again_while_it_is_wanted_and_only_then(start: Start, tmp_path: Path) -> None:
    process = start("again")
    before = wait_for(tmp_path, lambda record: record.healthy)
    assert before.parts["later"].state is PartState.DONE
    time.sleep(1)
    assert (tmp_path / "runs").read_text() == "run ", "the one that counts as done has run, or one ran twice"

    (tmp_path / "lost").touch()

    deadline = time.monotonic() + 20
    while (tmp_path / "lost").exists():
        assert time.monotonic() < deadline, "nobody ran again"
        time.sleep(0.05)
    after = wait_for(tmp_path, lambda record: record.healthy)
    assert after.parts["sleeper"].process == before.parts["sleeper"].process
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert said.count("is wanted again; starting it") == len((tmp_path / "runs").read_text().split()) - 1


def test_a_part_that_never_gets_healthy_ends_it_all_with_the_end_of_its_log(start: Start, tmp_path: Path) -> None:
    process = start("never")

    said, _ = process.communicate(timeout=30)

    assert process.returncode != 0
    assert "broken ended with status 3" in said
    assert "the reason" in said
    assert str(tmp_path / "logs" / "broken.log") in said


def test_an_optional_part_that_never_gets_healthy_is_reported_and_stops_nothing(start: Start, tmp_path: Path) -> None:
    process = start("optional")
    wait_for(tmp_path, lambda r: r.parts["broken"].restarts > 5 and r.parts["broken"].state is PartState.BACKING_OFF)
    record = wait_for(tmp_path, lambda r: r.healthy)
    assert record.parts["sleeper"].state is PartState.HEALTHY

    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.count("the reason\nEverything else works without it.") == 1
    assert "healthy after" in said


def test_a_part_that_responds_no_more_is_killed_and_started_again(start: Start, tmp_path: Path) -> None:
    (tmp_path / "responds").touch()
    start("hanging")
    before = wait_for(tmp_path, lambda r: r.healthy)
    time.sleep(0.7)
    assert read_record(tmp_path) == before, "one that responds is left alone"

    (tmp_path / "responds").unlink()
    wait_for(tmp_path, lambda r: r.parts["hangs"].restarts == 1)
    (tmp_path / "responds").touch()

    after = wait_for(tmp_path, lambda r: r.healthy)
    assert not psutil.pid_exists(pid_of(before, "hangs"))
    assert pid_of(after, "sleeper") == pid_of(before, "sleeper")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_every_part(start: Start, tmp_path: Path, signum: signal.Signals) -> None:
    process = start("plain")
    record = wait_for(tmp_path, lambda r: r.healthy)

    process.send_signal(signum)
    process.communicate(timeout=30)

    assert process.returncode == 0
    assert not any(psutil.pid_exists(pid_of(record, part)) for part in record.parts)


def test_a_part_that_does_not_listen_is_killed_after_its_grace(start: Start, tmp_path: Path) -> None:
    process = start("stubborn")
    record = wait_for(tmp_path, lambda r: r.healthy)
    deadline = time.monotonic() + 10
    while "deaf" not in (tmp_path / "logs" / "deaf.log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    began = time.monotonic()
    process.terminate()
    process.communicate(timeout=30)

    assert 0.5 <= time.monotonic() - began < 10
    assert not psutil.pid_exists(pid_of(record, "deaf"))


def test_every_line_of_a_part_is_shown_with_its_name(start: Start, tmp_path: Path) -> None:
    process = start("order")
    wait_for(tmp_path, lambda record: record.parts["once"].state is PartState.DONE)
    time.sleep(0.3)
    process.terminate()

    said, _ = process.communicate(timeout=30)
    assert "once | done" in said.splitlines()
