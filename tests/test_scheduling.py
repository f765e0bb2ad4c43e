"""Tests that share a server run in one process: every prefix exists, and every file that needs MLflow is in a group."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.markers import ROOT
from tests.scheduling import TOGETHER, together

STARTS_ITS_OWN = {"tests/deployments/test_mlflow_server.py"}
"""Files that import the fixture: pytest makes a server for them alone, whichever process runs them."""


def test_every_prefix_is_of_a_test_file() -> None:
    prefixes = [prefix for group in TOGETHER.values() for prefix in group]
    files = [name for name, _ in files_of_tests()]
    assert [prefix for prefix in prefixes if not any(file.startswith(prefix) for file in files)] == []


def test_every_file_that_needs_mlflow_is_in_a_group() -> None:
    asking = {name for name, file in files_of_tests() if asks_for_mlflow(file)}
    assert {"tests/flows/training/test_dreambooth.py", "tests/flows/training/test_mlflow_away.py"} <= asking
    assert sorted(name for name in asking - STARTS_ITS_OWN if together(name) is None) == []
    assert asking >= STARTS_ITS_OWN


def files_of_tests() -> list[tuple[str, Path]]:
    """Every file of tests or of fixtures, with its path below the root."""
    files = sorted(file for kind in ("test_*.py", "conftest.py") for file in (ROOT / "tests").rglob(kind))
    return [(str(file.relative_to(ROOT)), file) for file in files]


def asks_for_mlflow(file: Path) -> bool:
    """Whether a file names the server's fixture as a parameter or in `usefixtures`, or takes test_dreambooth's
    `settings`, which asks for it."""
    return any(_asks(node) for node in ast.walk(ast.parse(file.read_text())))


def _asks(node: ast.AST) -> bool:
    match node:
        case ast.arg(arg="mlflow_settings"):
            return True
        case ast.Call(func=ast.Attribute(attr="usefixtures"), args=names):
            return any(isinstance(name, ast.Constant) and name.value == "mlflow_settings" for name in names)
        case ast.Attribute(value=ast.Name(id="test_dreambooth"), attr="settings"):
            return True
        case ast.ImportFrom(module="tests.flows.training.test_dreambooth", names=names):
            return any(one.name == "settings" for one in names)
        case _:
            return False
