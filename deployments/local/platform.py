"""The embedded platform as one thing: run it, start it in the background, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from deployments.local.environment import PROJECT, temporary_folder
from deployments.local.errors import NotRunning, PartFailed
from deployments.local.leftovers import stop_leftovers
from deployments.local.parts import Part, Steps, platform_parts
from deployments.local.ports import refuse_taken_ports
from deployments.local.seed import with_own_keys
from deployments.local.state import holder, holding, read_record
from deployments.local.steps import platform_steps
from deployments.local.supervisor import Supervisor
from storage.settings import MIB, Settings

Say = Callable[[str, str], None]
START_SECONDS = 900.0
STOP_SECONDS = 60.0


def run_platform(settings: Settings, say: Say, on_healthy: Callable[[float], None]) -> None:
    """Run everything in the foreground until a signal asks to stop.

    Raises AlreadyRunning, PortTaken or PlatformError before anything is started, PartFailed when a part cannot start.
    """
    prepare_data_folder(settings.data_folder)
    with holding(settings.data_folder):
        for line in stop_leftovers(settings.data_folder):
            say("darkroom", line)
        if temporary := temporary_folder(settings):
            shutil.rmtree(temporary, ignore_errors=True)  # what killed workers and flows left
            temporary.mkdir(mode=0o700)
        settings = with_own_keys(settings)
        parts = platform_parts(settings, platform_steps(settings))
        refuse_taken_ports(parts)
        log_bytes = int(settings.retention.log_mib * MIB)
        Supervisor(settings.data_folder, parts, say, log_bytes).run(on_healthy)


def prepare_data_folder(folder: Path) -> None:
    """Make the data folder, closed to others, and see to it that everything in it will be too."""
    # For this process and all that it starts, whatever they write into the folder.
    os.umask(0o077)
    for made in (folder, folder / "run", folder / "logs"):
        made.mkdir(mode=0o700, parents=True, exist_ok=True)


def start_detached(settings: Settings, while_waiting: Callable[[], None] = lambda: None) -> int:
    """Start `darkroom up` in the background and wait until it is healthy; returns its pid. `while_waiting` is called
    ten times a second meanwhile.

    One that runs already is waited for instead. Raises PartFailed with the end of its log when it ends first.
    """
    folder = settings.data_folder
    prepare_data_folder(folder)
    pid = holder(folder)
    log = folder / "logs" / "up.log"
    child: subprocess.Popen[bytes] | None = None
    if pid is None:
        began = log.stat().st_size if log.exists() else 0
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "deployments.cli", "up"],
                env={**os.environ, "PYTHONPATH": str(PROJECT), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # So neither Ctrl-C here nor the end of this terminal reaches it.
                start_new_session=True,
            )
        pid = child.pid
    else:
        began = 0
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        record = read_record(folder)
        # By the pid: the record of an earlier `up` may still be there.
        if record and record.supervisor.pid == pid and record.healthy:
            return pid
        while_waiting()
        # Both: a child of ours that has ended exists, as a zombie, until it is polled.
        if (child and child.poll() is not None) or not psutil.pid_exists(pid):
            with log.open("rb") as output:
                output.seek(began)
                raise PartFailed(f"`darkroom up` ended before it was healthy:\n{output.read().decode().strip()}")
        time.sleep(0.1)
    raise PartFailed(f"Darkroom (process {pid}) is not healthy after {START_SECONDS:.0f} s. See {log}.")


def stop_platform(settings: Settings) -> None:
    """Stop the `up` of this data folder and everything it started. Raises NotRunning when there was nothing."""
    folder = settings.data_folder
    pid = holder(folder)
    if pid is None:
        stop_what_is_left(folder)
        return
    os.kill(pid, signal.SIGTERM)
    if not _is_let_go(folder, STOP_SECONDS):
        os.kill(pid, signal.SIGKILL)
        # A killed `up` stops nothing: its parts live on.
        _is_let_go(folder, STOP_SECONDS)
        stop_what_is_left(folder)


def _is_let_go(folder: Path, timeout_seconds: float) -> bool:
    """Wait until no `up` holds the folder: it lets go when all is stopped, or with its death, reaped or not."""
    deadline = time.monotonic() + timeout_seconds
    while holder(folder) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def stop_what_is_left(folder: Path) -> None:
    """Stop the parts of an `up` that died. Raises NotRunning when there are none."""
    if not folder.exists():
        raise NotRunning(f"Darkroom does not run: there is no data folder {folder}. Start it with `darkroom up`.")
    with holding(folder):
        if not stop_leftovers(folder):
            raise NotRunning(f"Darkroom does not run on {folder}. Start it with `darkroom up`.")


def parts_of(settings: Settings) -> list[Part]:
    """The parts that these settings ask for, for a look from outside."""
    return platform_parts(settings, Steps())
