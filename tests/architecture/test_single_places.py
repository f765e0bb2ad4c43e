"""What two places could say differently is said in one."""

from __future__ import annotations

import ast

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, source_files, syntax

SAID_IN = {
    "MLFLOW_HTTP_REQUEST_": "flows/jobs/tracking.py",
    "MLFLOW_TRACKING_USERNAME": "flows/jobs/tracking.py",
}
"""Variables of libraries, or how their names begin, each with the one file that sets it."""
WRITTEN = {".py", ".yaml"}


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
