"""The API in a real environment that holds what `pip install .[api]` installs. It needs PyPI, or a mirror of it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deployments.cli import COMMANDS
from platform_api.http.docs_page import ASSETS, VERSION
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import JobState
from tests.architecture.source_tree import PACKAGES
from tests.extras import MODELS_AND_PIPELINES, installed_by
from tests.platform_api.door import Door, upload
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.process import PROJECT, Process

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1800)]

COPIED = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt")
IMPORTED = """
import json, sys, platform_api.app
print(json.dumps([sys.prefix, platform_api.app.__file__, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and a folder that holds none of the code."""

    python: str
    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A module of it, as a user runs it: `python -m WORDS`."""
        command = [self.python, "-m", *words]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def api_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the extra `api` of a copy of the code, which is built and installed as a wheel."""
    source, made, folder = (tmp_path_factory.mktemp(name) for name in ("source", "environment", "elsewhere"))
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in COPIED:
        shutil.copy(PROJECT / name, source)
    subprocess.run([sys.executable, "-m", "venv", str(made)], check=True)
    environment = Environment(str(made / "bin" / "python"), folder)
    installed = environment.run("pip", "install", "--constraint", str(source / "constraints.txt"), f"{source}[api]")
    assert installed.returncode == 0, installed.stderr
    shutil.rmtree(source)
    return environment


def test_only_what_the_extra_asks_for_is_installed(api_environment: Environment) -> None:
    listed = json.loads(api_environment.run("pip", "list", "--format", "json").stdout)
    names = {one["name"].lower().replace("_", "-") for one in listed}

    assert names.isdisjoint(MODELS_AND_PIPELINES)
    assert names - installed_by("api") <= {"darkroom", "pip", "setuptools"}
    assert api_environment.run("pip", "check").returncode == 0


def test_the_api_is_imported_from_there(api_environment: Environment) -> None:
    command = [api_environment.python, "-c", IMPORTED]
    done = subprocess.run(command, cwd=api_environment.folder, capture_output=True, text=True, check=True)
    prefix, file, loaded = json.loads(done.stdout)

    assert Path(file).is_relative_to(prefix)
    assert {"litestar", "storage"} <= {*loaded}
    assert {"flows", "PIL", "flask", "numpy"}.isdisjoint(loaded)


def test_it_takes_photos_and_jobs_and_serves_the_catalogue_and_its_pages(
    door: Door, api_environment: Environment
) -> None:
    process = Process(door.settings, python=api_environment.python, folder=api_environment.folder)
    headers = {"Authorization": f"Bearer {door.key}"}
    with process, httpx.Client(base_url=process.url, timeout=60, headers=headers) as client:
        made = publish(door, client)
        wanted = {"model": made.version, "prompt": "a photo of a sks mug"}
        drawing = client.post("/api/v1/generations", json=wanted)
        training = client.post("/api/v1/training-jobs", json={"dataSetId": upload(client)["id"], "classWord": "mug"})
        found = client.get("/api/v1/models").raise_for_status().json()
        content = client.get(made.path)
        pages = [client.get(path) for path in ("/docs", "/schema/openapi.json", "/health", "/metrics")]
        assets = [client.get(f"/docs/{VERSION}/{name}") for name in ASSETS]

    for submitted in (drawing, training):
        assert submitted.status_code == 202, submitted.text
        assert door.database.run(jobs.get(submitted.json()["id"])).state is JobState.SUBMITTED
    assert [one["id"] for one in found["items"]] == [made.model]
    assert hashlib.sha256(content.content).hexdigest() == made.sha256
    assert {page.request.url.path: page.status_code for page in [*pages, *assets] if page.status_code != 200} == {}
    assert "/api/v1/training-jobs" in pages[1].json()["paths"]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_starts_or_says_which_extra_it_needs(api_environment: Environment, name: str) -> None:
    done = api_environment.run("deployments.cli", name, "--help")

    assert "Traceback" not in done.stderr
    if "worker" in COMMANDS[name].extras:
        assert done.returncode == 1
        assert "pip install 'darkroom[worker]'" in done.stderr
    else:
        assert done.returncode == 0, done.stderr
