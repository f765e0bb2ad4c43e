"""Imports go one way: every contract of pyproject.toml can fail, and no import hides inside a function."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, imported_modules, python_files, syntax

BROKEN_BY = {
    "Arrows point down": ("storage/stores.py", "platform_api.app"),
    "The API loads no torch": ("platform_api/jobs/jobs.py", "torch"),
    "Records reach no driver": ("storage/records/jobs/jobs.py", "psycopg"),
    "Heavy libraries stay where models are": ("flows/relay/relay.py", "diffusers"),
    "Areas and modules of one package import each other without a cycle": (
        "flows/runs/retries.py",
        "flows.jobs.lifecycle",
    ),
    "What training and generation share knows neither": ("flows/diffusion/sampler.py", "flows.training.work"),
    "A training or generation process loads nothing that sends or indexes": ("flows/jobs/lifecycle.py", "smtplib"),
    "The relay and what it starts flows through loads no flow's work": ("flows/relay/effects.py", "mlflow"),
    "Clients of stores are built in one place": ("flows/indexing/sync.py", "storage.redis.cache"),
}
"""For each contract a module, and an import that it must not have."""
FIRST_PARTY = {*PACKAGES, "tests", "benchmarks"}
INDENTED_IMPORT = re.compile(rf"^[ ]+(from|import) ({'|'.join(sorted(FIRST_PARTY))})\b", re.MULTILINE)
"""What a file with such an import holds; few are parsed then."""
SHOWN_AS = {"flows.jobs.lifecycle": ".runs -> .jobs"}
"""What a report names instead of the import."""


def contracts() -> list[str]:
    """The names of the contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return [contract["name"] for contract in settings["tool"]["importlinter"]["contracts"]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the import linter says of a copy of the source in which each contract is broken once."""
    copy = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", copy)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=only_python)
    for file, imported in BROKEN_BY.values():
        with (copy / file).open("a") as source:
            source.write(f"\nimport {imported}\n")
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=copy, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def only_python(folder: str, names: list[str]) -> set[str]:
    """What a copy of a package leaves out: everything but folders and Python files."""
    return {name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()}


def test_every_contract_has_an_import_that_breaks_it() -> None:
    assert sorted(BROKEN_BY) == sorted(contracts())


@pytest.mark.parametrize("contract", BROKEN_BY)
def test_a_contract_can_fail(contract: str, report: str) -> None:
    file, imported = BROKEN_BY[contract]
    module = file.removesuffix(".py").replace("/", ".")
    reasons = report.partition("Broken contracts")[2].partition(f"\n{contract}\n---")[2]
    reason = re.split(r"\n.+\n-{3,}\n", reasons)[0]
    assert f"{contract} BROKEN" in report
    assert SHOWN_AS.get(imported, imported) in reason, f"{module} imports {imported}, and the contract did not mind."


def imports_inside_functions(file: PurePosixPath) -> Iterator[str]:
    """First-party imports that a function of this file does when it is called."""
    if INDENTED_IMPORT.search((ROOT / file).read_text()) is None:
        return
    for function in ast.walk(syntax(file)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            for node in ast.walk(function):
                if any(name.partition(".")[0] in FIRST_PARTY for name in imported_modules(node)):
                    yield f"{file}:{function.name}: {ast.unparse(node)}"


def test_no_function_imports_from_this_project() -> None:
    files = python_files(*PACKAGES, "tests", "benchmarks")
    assert [found for file in files for found in imports_inside_functions(file)] == []
