"""What two places could say differently is said in one."""

from __future__ import annotations

import ast
from pathlib import PurePosixPath

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, source_files, syntax

SAID_IN = {
    "MLFLOW_HTTP_REQUEST_": "flows/jobs/tracking.py",
    "MLFLOW_TRACKING_USERNAME": "flows/jobs/tracking.py",
}
"""Variables of libraries, or how their names begin, each with the one file that sets it."""
WRITTEN = {".py", ".yaml"}
NO_DUTIES = {"__init__", "__main__", "duty", "relay", "refusals"}
"""Files of the relay that are none of its duties: what carries them all out, and what the effects share."""


@pytest.mark.parametrize("variable", SAID_IN)
def test_a_variable_is_set_in_one_file(variable: str) -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in WRITTEN]
    found = {path.relative_to(ROOT).as_posix() for path in files if variable in path.read_text()}
    assert found == {SAID_IN[variable]}


def test_one_function_is_called_retried() -> None:
    found = [
        str(file)
        for file in source_files()
        for node in ast.walk(syntax(file))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "retried"
    ]
    assert found == ["storage/backoff.py"]


def functions(file: PurePosixPath) -> list[str]:
    """The functions that a file defines outside of classes."""
    return [node.name for node in syntax(file).body if isinstance(node, ast.FunctionDef)]


def test_each_duty_of_the_relay_stands_in_a_file_of_its_own() -> None:
    files = {file.stem: file for file in source_files() if file.parent == PurePosixPath("flows/relay")}
    duties = {name for name, file in files.items() if functions(file).count("duty") == 1}
    called = {ast.unparse(node.func) for node in ast.walk(syntax(files["relay"])) if isinstance(node, ast.Call)}
    assert duties == files.keys() - NO_DUTIES
    assert {f"{name}.duty" for name in duties} <= called, "Give the relay a line for each duty."
    assert "Duty" not in called
