"""The API as a process of its own, for tests that kill it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from storage.settings import Settings

PROJECT = Path(__file__).parents[2]


@dataclass
class Process:
    """One API process on a port that stays the same, so that a client finds the next one."""

    settings: Settings
    port: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    python: str = sys.executable
    folder: Path = PROJECT
    """Where it starts; a Python of another environment starts where this project's code does not lie."""
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        if not self.port:
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                self.port = int(listener.getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process is not None
        return self.process.pid

    def start(self) -> None:
        """Run it until it responds."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "DARKROOM_DATA_FOLDER": str(self.settings.data_folder),
            "DARKROOM_POSTGRES__URL": self.settings.postgres.url.get_secret_value(),
            "DARKROOM_REDIS__URL": self.settings.redis.url.get_secret_value(),
            "DARKROOM_SEARCH__ENCODER_FOLDER": "off",
            **self.variables,
        }
        command = [self.python, "-m", "uvicorn", "platform_api.app:app_from_environment", "--factory"]
        options = ["--host", "127.0.0.1", "--port", str(self.port), "--log-level", "error", "--no-access-log"]
        graceful = ["--timeout-graceful-shutdown", "10"]
        self.process = subprocess.Popen(
            [*command, *options, *graceful], env=environment, cwd=self.folder, start_new_session=True
        )
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"The API ended with {self.process.returncode}.")
            try:
                httpx.get(f"{self.url}/schema/openapi.json", timeout=5)
            except httpx.TransportError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError("The API did not start.")

    def ask_to_stop(self) -> None:
        """What a supervisor sends."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(timeout=30)
            self.process = None

    def __enter__(self) -> Process:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
