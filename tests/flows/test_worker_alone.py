"""The worker runs where no library of the API is installed: what its processes import, the extra `worker` brings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source_tree import PACKAGES, module_name, python_files
from tests.extras import HIDING, environment_of, hidden_without
from tests.warm import run_warm

EXTRAS = ("worker", "s3", "trackers")
OF_THE_API = ("litestar", "nh3", "flask_swagger_ui", "polyfactory")
"""What the extra `api` brings alone."""
OF_BOTH = {
    "deployments.reference_pages",
    "deployments.reference_tables",
    "deployments.scheduler_tables",
    "deployments.training_tables",
}
"""They write pages of the documentation, from a clone."""
FORGETTING = """
forgotten = {ours} | HIDDEN
for name in [name for name in sys.modules if name.partition(".")[0] in forgotten]:
    del sys.modules[name]
"""
"""In a process that has libraries already: ours are imported again, and what is hidden is not there."""
IMPORTS = """
import sys
from importlib import import_module
from importlib.util import find_spec

for name in sys.argv[1:]:
    import_module(name)
print([name for name in {missing} if find_spec(name)], "platform_api" in sys.modules)
"""


def run_afresh(program: str, *names: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process that begins with nothing."""
    environment = {**os.environ, **environment_of(folder / "hidden", *EXTRAS)}
    command = [sys.executable, "-c", program, *names]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def run_forked(program: str, *names: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """In a process that has torch and what else others have imported: reading that again takes most of the time."""
    hiding = HIDING.format(hidden=sorted(hidden_without(*EXTRAS))) + FORGETTING.format(ours={*PACKAGES, "tests"})
    return run_warm(hiding + program, *names, environment=os.environ)


@pytest.mark.parametrize("run", [run_forked, pytest.param(run_afresh, marks=pytest.mark.soak)])
def test_every_module_of_the_worker_is_imported_without_the_api(run: Callable[..., Any], tmp_path: Path) -> None:
    packages = sorted({*PACKAGES} - {"platform_api"})
    names = {module_name(file) for file in python_files(*packages)} - OF_BOTH

    done = run(IMPORTS.format(missing=OF_THE_API), *sorted(names), folder=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] False"
