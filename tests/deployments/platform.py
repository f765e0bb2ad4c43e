"""The whole embedded platform on ports and a folder of its own, for end-to-end and fault tests.

with running_platform({"DARKROOM_JOBS__HEARTBEAT_SECONDS": "1"}) as platform:
    httpx.get(platform.api_url + "/health")
    platform.kill("postgres")
    platform.wait_healthy()
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from deployments.local.environment import PROJECT, settings_environment
from deployments.local.leftovers import processes_of
from deployments.local.state import PartRecord, PlatformRecord, read_record
from deployments.local.workers.warm_starts import FLOW_RUN_NAME
from storage.settings import ApiSettings, MlflowSettings, PrefectSettings, Settings
from tests.conftest import free_port


def is_flow_run(process: psutil.Process) -> bool:
    """Whether a process carries out a flow run: forked warm from a worker's fork server, or started cold."""
    try:
        return process.name() == FLOW_RUN_NAME or "prefect.engine" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


def children(process: psutil.Process) -> list[psutil.Process]:
    """What a process has started, and what that has."""
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


@dataclass
class Platform:
    """One data folder, and the `darkroom up` that runs on it. `extra` are DARKROOM_* settings on top of the ports."""

    folder: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self._ports = [free_port() for _ in range(3)]

    @property
    def settings(self) -> Settings:
        """What the platform runs with, and the secrets that its data folder holds by now."""
        prefect, mlflow, api = self._ports
        return Settings(
            data_folder=self.folder,
            prefect=PrefectSettings(port=prefect),
            mlflow=MlflowSettings(port=mlflow),
            api=ApiSettings(port=api),
        )

    @property
    def environment(self) -> dict[str, str]:
        """What `darkroom` and every program that speaks with this platform is to be run with."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DARKROOM_", "PREFECT_"))}
        ours = {name: value for name, value in settings_environment(self.settings).items() if value}
        return {**kept, **ours, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT), **self.extra}

    @property
    def api_url(self) -> str:
        """Where the API listens."""
        return self.settings.api.public_url

    @property
    def key(self) -> str:
        """The owner's API key."""
        return self.settings.owner_key_file.read_text().strip()

    @property
    def output(self) -> str:
        """Everything that `up` has said."""
        return (self.folder / "test-up.log").read_text(errors="replace")

    def start(self) -> None:
        """Start `darkroom up` and leave it to itself."""
        self.folder.mkdir(exist_ok=True)
        with (self.folder / "test-up.log").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "deployments.cli", "up"],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def cli(self, *words: str, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
        """Run a `darkroom` command against this platform."""
        command = [sys.executable, "-m", "deployments.cli", *words]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def record(self) -> PlatformRecord | None:
        """What the running `up` says about itself; None when it is not the one that wrote the record."""
        record = read_record(self.folder)
        mine = record is not None and self.process is not None and record.supervisor.pid == self.process.pid
        return record if mine else None

    def part(self, name: str) -> PartRecord:
        """What `up` knows of a part."""
        record = self.record()
        if record is None:
            raise AssertionError(f"no running platform: {self.output[-3000:]}")
        return record.parts[name]

    def pid(self, name: str) -> int:
        """The process of a part."""
        process = self.part(name).process
        if process is None:
            raise AssertionError(f"{name} has no process: {self.output[-3000:]}")
        return process.pid

    def kill(self, name: str) -> int:
        """kill -9 a part; returns the pid that it had."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def flow_processes(self) -> list[psutil.Process]:
        """The processes of flow runs, and what those have started, that run now."""
        runs = [process for _, process in processes_of(self.folder) if is_flow_run(process)]
        return list({each.pid: each for run in runs for each in (run, *children(run))}.values())

    def wait_healthy(self, *, timeout: float = 480.0, restarted: Mapping[str, int] | None = None) -> None:
        """Wait until every part is healthy and those in `restarted` have another pid than the one given."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            record = self.record()
            if record and record.healthy and all(self.pid(name) != old for name, old in (restarted or {}).items()):
                return
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"`darkroom up` ended: {self.output[-5000:]}")
            time.sleep(0.2)
        raise AssertionError(f"not healthy after {timeout} s: {self.record()}\n{self.output[-5000:]}")

    def stop(self, timeout: float = 90.0) -> None:
        """Ask `up` to stop, as `darkroom down` does, and wait."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=timeout)

    def kill_everything(self) -> None:
        """kill -9 `up`, every part and every flow process, as a loss of power does."""
        if self.process:
            self.process.kill()
            self.process.wait()
        for _, process in processes_of(self.folder):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


@contextmanager
def running_platform(extra: Mapping[str, str] | None = None, *, keep: bool = False) -> Generator[Platform]:
    """A healthy platform in a new short folder. At the end no process is left, and no folder unless `keep`."""
    platform = Platform(Path(tempfile.mkdtemp(prefix="dr-")), extra or {})
    try:
        platform.start()
        platform.wait_healthy()
        yield platform
        platform.stop()
    finally:
        platform.kill_everything()
        if not keep:
            shutil.rmtree(platform.folder, ignore_errors=True)
