"""Old code on the new schema (promise C21): a release is rolled out while the one before it still serves."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.local.environment import PROJECT

BASELINE = Path(__file__).with_name("baseline.txt")
SCHEMA = (
    "storage/postgres/migrations",
    "storage/postgres/migrating.py",
    "storage/postgres/lookup_tables.py",
    "storage/postgres/lookup_tables.sql",
    "storage/records/notifications/channels.py",
    "storage/records/notifications/address_forms.py",
)
"""What the old code is given of today: the migrations, what runs them, and the names that these fill tables with."""


@dataclass(frozen=True)
class Baseline:
    """baseline.txt: a commit, its tests of each size, and those that may fail, each with its reason."""

    commit: str
    tests: dict[str, list[str]]
    exceptions: dict[str, str]


def read_baseline() -> Baseline:
    """The file. Raises ValueError for a line that it does not know."""
    commit, tests, exceptions = "", {"small": list[str](), "full": list[str]()}, dict[str, str]()
    for line in BASELINE.read_text().splitlines():
        word, _, rest = line.partition(" ")
        match word:
            case "" | "#":
                continue
            case "commit":
                commit = rest
            case "small" | "full":
                tests[word].append(rest)
            case "except" if " because " in rest:
                test, _, reason = rest.partition(" because ")
                exceptions[test] = reason
            case _:
                raise ValueError(f"{BASELINE.name}: {line!r}")
    return Baseline(commit, tests, exceptions)


@pytest.fixture
def old_code(tmp_path: Path) -> Path:
    """The tree of the baseline commit, with the schema of today."""
    commit = read_baseline().commit
    if subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=PROJECT, check=False).returncode:
        pytest.skip(f"this clone is shallow: it lacks the baseline commit {commit} (git fetch --unshallow)")
    folder = tmp_path / "old"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=PROJECT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    for path in SCHEMA:
        if (folder / path).is_dir():
            shutil.rmtree(folder / path)
            shutil.copytree(PROJECT / path, folder / path)
        else:
            shutil.copy(PROJECT / path, folder / path)
    return folder


def run_its_tests(folder: Path, tests: Sequence[str], *options: str) -> None:
    """Run tests of another tree with its own code. Raises AssertionError with what pytest says when one fails."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "DARKROOM_"))}
    where = [sys.executable, "-c", "import storage; print(storage.__path__[0])"]
    environment = {**kept, "PYTHONPATH": str(folder)}
    found = subprocess.run(where, cwd=folder, env=environment, check=True, capture_output=True, text=True)
    assert found.stdout.strip() == str(folder / "storage")
    skipped = [word for test in read_baseline().exceptions for word in ("--deselect", test)]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, *tests, *skipped]
    done = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}"


def test_the_code_of_the_baseline_works_on_the_schema_of_today(old_code: Path) -> None:
    run_its_tests(old_code, read_baseline().tests["small"])


@pytest.mark.soak
def test_what_breaks_the_code_of_the_baseline_is_found(old_code: Path) -> None:
    breaking = old_code / SCHEMA[0] / "9999_breaking.sql"
    breaking.write_text("alter table jobs rename column heartbeat_at to alive_at;")
    with pytest.raises(AssertionError, match="heartbeat_at"):
        run_its_tests(old_code, ["tests/storage/postgres/jobs/test_jobs.py"], "-k", "claim", "-x")


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_code_of_the_baseline_works_on_the_schema_of_today_in_all_its_tests(old_code: Path) -> None:
    run_its_tests(old_code, read_baseline().tests["full"])
