"""Starts the parts in order, starts again what dies, and stops everything.

One loop and no threads: every tick looks at each part once. A part is started when all it needs is healthy, is asked
for its health until it is, and is started again with a growing pause whenever its process ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

import httpx
import psutil
import psycopg

from deployments.local.errors import PartFailed
from deployments.local.leftovers import stop_strays
from deployments.local.logs import PartLog
from deployments.local.niceness import step_back
from deployments.local.parts import Part
from deployments.local.state import (
    PartRecord,
    PartState,
    PlatformRecord,
    name_process,
    write_record,
)
from deployments.local.supervised import TRIES_OF_A_FIRST_START, Supervised
from flows.runs.stop_times import FLOW_GRACE_SECONDS
from storage.backoff import pause_after
from storage.errors import DarkroomError
from storage.settings import MIB

TICK_SECONDS = 0.1
CALM_TICK_SECONDS = 0.3
PROBE_SECONDS = 0.3
# So often a part that has ended is asked whether it is wanted again; each time that it was, twice as long.
FIRST_LOOK_SECONDS = 15.0
MAX_LOOK_SECONDS = 900.0
FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 30.0
# So long at most, where the platform does without a part that has never been healthy.
MAX_OPTIONAL_PAUSE_SECONDS = 300.0
# A healthy part is asked this often whether it still responds, where its part says so.
WATCH_SECONDS = 15.0
# A part that stayed up this long is forgiven its earlier deaths.
FORGIVEN_AFTER_SECONDS = 60.0


class Supervisor:
    """Runs the parts of one data folder until it is stopped."""

    def __init__(
        self, data_folder: Path, parts: Sequence[Part], say: Callable[[str, str], None], log_bytes: int = 64 * MIB
    ) -> None:
        """`say` gets the part's name and a line for everything that is logged; our own lines are of `darkroom`.

        log_bytes: a log file over this size is cut.
        """
        self._folder, self._log_bytes = data_folder, log_bytes
        self._say = say
        self._parts = {part.name: self._supervised(part) for part in parts}
        self._own_log = PartLog(data_folder / "logs", "up")  # what a detached `up` says, every part's lines among it
        self._stop_requests = 0
        self._announced = False
        self._me = name_process(os.getpid())

    def run(self, on_healthy: Callable[[float], None]) -> None:
        """Start everything, call `on_healthy` with the seconds it took, and watch until SIGINT, SIGTERM or SIGHUP.

        Raises PartFailed, after stopping everything, when a part cannot be started at all.
        """
        began = time.monotonic()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, self._on_signal)
        try:
            while not self._stop_requests:
                self._tick()
                if not self._announced and self._all_settled():
                    self._announced = True
                    self._record()
                    on_healthy(time.monotonic() - began)
                time.sleep(CALM_TICK_SECONDS if self._all_settled() else TICK_SECONDS)
        finally:
            self._stop()

    def _supervised(self, part: Part) -> Supervised:
        one = Supervised(
            part, PartLog(self._folder / "logs", part.name), next_look=time.monotonic() + FIRST_LOOK_SECONDS
        )
        if part.done_already:
            one.state, one.was_healthy = PartState.DONE, True
        return one

    def _on_signal(self, _signum: int, _frame: FrameType | None) -> None:
        self._stop_requests += 1

    def _tick(self) -> None:
        self._own_log.cut(self._log_bytes)
        for one in self._parts.values():
            for line in one.log.new_lines():
                self._say(one.part.name, line)
            one.log.cut(self._log_bytes)
            match one.state:
                case PartState.WAITING | PartState.BACKING_OFF:
                    if time.monotonic() >= one.next_start and all(self._parts[n].satisfied for n in one.part.needs):
                        self._start(one)
                case PartState.STARTING:
                    self._watch_start(one)
                case PartState.HEALTHY:
                    self._watch_healthy(one)
                case PartState.DONE:
                    if time.monotonic() >= one.next_look:
                        self._look_again(one)
                case PartState.STOPPED:
                    pass

    def _look_again(self, one: Supervised) -> None:
        """Restart a part that has ended when it is wanted; less and less often when that does not help."""
        wanted = one.part.wanted_again(one.since)
        one.looks = one.looks + 1 if wanted else 1
        one.next_look = time.monotonic() + pause_after(one.looks, FIRST_LOOK_SECONDS, MAX_LOOK_SECONDS)
        if wanted:
            self._say("darkroom", f"{one.part.name} is wanted again; starting it")
            self._start(one)

    def _start(self, one: Supervised) -> None:
        part = one.part
        try:
            part.before_start()
        except (DarkroomError, httpx.HTTPError, psycopg.Error, OSError) as error:
            self._died(one, f"could not be prepared: {error}")
            return
        with one.log.open_for_process() as output:
            one.process = subprocess.Popen(
                list(part.command),
                env=dict(part.environment),
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # A process of its own session keeps SIGINT at its default; with it ignored a worker never stops.
                start_new_session=True,
                user=part.run_as.user,
                group=part.run_as.group,
                extra_groups=part.run_as.extra_groups,
            )
        try:
            one.name = name_process(one.process.pid)
        except psutil.NoSuchProcess:
            one.name = None  # it has ended already; the next tick says so
        self._enter(one, PartState.STARTING)

    def _watch_start(self, one: Supervised) -> None:
        process = one.process
        if process is None or not one.alive:
            if one.part.once and process is not None and process.returncode == 0:
                self._become(one, PartState.DONE)
            else:
                self._died(one, f"ended with status {self._status(one)} before it was healthy")
        elif self._responds(one, process.pid):
            self._become(one, PartState.HEALTHY)
        elif time.time() - one.since > one.part.start_seconds:
            self._kill(one)
            self._died(one, f"was not healthy after {one.part.start_seconds:.0f} s")

    def _watch_healthy(self, one: Supervised) -> None:
        if one.process is None or not one.alive:
            self._died(one, f"ended with status {self._status(one)}")
        elif self._hangs(one, one.process.pid):
            silent = time.monotonic() - one.responded
            self._kill(one)
            self._died(one, f"has not responded for {silent:.0f} s")
        elif one.deaths and time.time() - one.since > FORGIVEN_AFTER_SECONDS:
            one.deaths = 0

    def _hangs(self, one: Supervised, pid: int) -> bool:
        """Whether a healthy part that is watched has not responded for too long."""
        if not one.part.silent_seconds or time.monotonic() < one.next_probe:
            return False
        one.next_probe = time.monotonic() + min(WATCH_SECONDS, one.part.silent_seconds / 4)
        if one.part.healthy(pid):
            one.responded = time.monotonic()
        return time.monotonic() - one.responded > one.part.silent_seconds

    def _responds(self, one: Supervised, pid: int) -> bool:
        if one.part.once or time.monotonic() < one.next_probe:
            return False
        one.next_probe = time.monotonic() + PROBE_SECONDS
        return one.part.healthy(pid)

    def _become(self, one: Supervised, state: PartState) -> None:
        try:
            if one.part.niceness and one.process:
                step_back(one.process.pid, one.part.niceness)
            one.part.when_healthy()
        except (DarkroomError, httpx.HTTPError, psycopg.Error, OSError) as error:
            self._kill(one)
            self._died(one, f"responds, but the step after it failed: {error}")
            return
        one.was_healthy, one.responded = True, time.monotonic()
        self._enter(one, state)

    def _died(self, one: Supervised, what: str) -> None:
        """Start it again after a pause, or give up on the whole when it has never been healthy and is not optional."""
        one.deaths += 1
        one.restarts += 1
        pid = one.process.pid if one.process else "none"
        longest = MAX_PAUSE_SECONDS
        if not one.was_healthy and one.deaths >= TRIES_OF_A_FIRST_START:
            failure = (
                f"{one.part.name} {what}, {one.deaths} times. Its log, {one.log.file}, ends with:\n"
                f"{one.log.last_lines()}"
            )
            if not one.part.optional:
                raise PartFailed(failure)
            if one.deaths == TRIES_OF_A_FIRST_START:
                self._say("darkroom", f"{failure}\nEverything else works without it.")
            longest = MAX_OPTIONAL_PAUSE_SECONDS
        pause = pause_after(one.deaths, FIRST_PAUSE_SECONDS, longest)
        one.next_start = time.monotonic() + pause
        self._say("darkroom", f"{one.part.name} (process {pid}) {what}; starting it again in {pause:g} s")
        self._enter(one, PartState.BACKING_OFF)

    def _status(self, one: Supervised) -> int | None:
        return one.process.returncode if one.process else None

    def _enter(self, one: Supervised, state: PartState) -> None:
        one.state, one.since = state, time.time()
        self._record()

    def _record(self) -> None:
        parts = {
            name: PartRecord(one.state, one.since, one.restarts, one.name if one.alive else None)
            for name, one in self._parts.items()
        }
        write_record(self._folder, PlatformRecord(self._me, self._announced and self._all_settled(), parts))

    def _all_settled(self) -> bool:
        return all(one.settled for one in self._parts.values())

    def _stop(self) -> None:
        """Stop every part: workers first, then their flow processes, what others need last. A second signal kills."""
        self._say("darkroom", "stopping")
        workers = [one for one in self._parts.values() if one.part.starts_flows]
        others = [one for one in self._parts.values() if not one.part.starts_flows]
        self._stop_in_order(workers)
        # Flow processes are found by the platform's mark, which the other parts carry, too: those are not to go yet.
        spared = {pid for one in others if one.process for pid in _family(one.process.pid)}
        stop_strays(self._folder, spared, grace_seconds=0 if self._stop_requests > 1 else FLOW_GRACE_SECONDS)
        self._stop_in_order(others)
        for one in self._parts.values():
            one.state = PartState.STOPPED
        self._record()
        self._say("darkroom", "stopped")

    def _stop_in_order(self, chosen: Sequence[Supervised]) -> None:
        while living := [one for one in chosen if one.alive]:
            for one in living:
                if any(one.part.name in other.part.needs for other in living):
                    continue
                self._ask_to_stop(one)
                if time.monotonic() > one.kill_at or self._stop_requests > 1:
                    self._kill(one)
            time.sleep(0.02)

    def _ask_to_stop(self, one: Supervised) -> None:
        """Once only: a worker that gets a second signal drops what it is doing."""
        if one.process and one.alive and not one.kill_at:
            one.process.send_signal(one.part.stop_signal)
            one.kill_at = time.monotonic() + one.part.stop_seconds

    def _kill(self, one: Supervised) -> None:
        if one.alive and one.process:
            # The group: each part leads its session, and what it has started is to go with it.
            os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def _family(pid: int) -> set[int]:
    """A process and all it has started."""
    try:
        return {pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))}
    except psutil.NoSuchProcess:
        return set()
