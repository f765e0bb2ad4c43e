"""The worker runs where no library of the API is installed: what its processes import, the extra `worker` brings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.architecture.source_tree import PACKAGES, module_name, python_files
from tests.extras import environment_of

OF_THE_API = ("litestar", "nh3", "flask_swagger_ui", "polyfactory")
"""What the extra `api` brings alone."""
OF_BOTH = {"deployments.reference_pages", "deployments.reference_tables", "deployments.training_tables"}
"""They write pages of the documentation, from a clone."""
IMPORTS = """
import sys
from importlib import import_module
from importlib.util import find_spec

for name in sys.argv[1:]:
    import_module(name)
print([name for name in {missing} if find_spec(name)], "platform_api" in sys.modules)
"""


def test_every_module_of_the_worker_is_imported_without_the_api(tmp_path: Path) -> None:
    packages = sorted({*PACKAGES} - {"platform_api"})
    names = {module_name(file) for file in python_files(*packages)} - OF_BOTH
    program = IMPORTS.format(missing=OF_THE_API)
    environment = {**os.environ, **environment_of(tmp_path / "hidden", "worker", "s3", "trackers")}

    command = [sys.executable, "-c", program, *sorted(names)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[] False"
