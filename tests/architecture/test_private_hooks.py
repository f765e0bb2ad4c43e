"""What libraries keep to themselves is used in few files, each of which says which upstream issue would end that.

Private is a name with one underscore in front, and a module that no page of its library names.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import PurePosixPath

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, imported_modules, imports_of, source_files, syntax

PREFECT = PurePosixPath("deployments/local/workers/prefect_internals.py")
EXIT = PurePosixPath("flows/runs/exit_hooks.py")
MLFLOW_STORE = PurePosixPath("flows/upkeep/retention/mlflow_store.py")
MLFLOW_FILES = PurePosixPath("flows/jobs/registry/artifact_files.py")
MLFLOW_SERVER = PurePosixPath("deployments/mlflow_server.py")
PREFECT_SERVER = PurePosixPath("deployments/prefect_server.py")
ENVIRONMENT = PurePosixPath("deployments/local/environment.py")
PRECISION = PurePosixPath("flows/training/precision.py")
PRIVATE_MODULES = {
    "atexit": {EXIT},
    "prefect.runner": {PREFECT},
    "prefect.server": {PREFECT_SERVER},
    "mlflow.store": {MLFLOW_STORE, MLFLOW_FILES},
    "mlflow.server": {MLFLOW_SERVER},
}
"""Modules that are private, or whose public names are undocumented, each with the files that may import it."""
UNDOCUMENTED = {"refresh_global_settings_context": {PREFECT}}
"""Public names in no page of their library's."""
PRIVATE_VARIABLES = ("PREFECT__", "_MLFLOW_")
"""How variables begin that a library's processes set for each other."""
HOOKED = {*set().union(*PRIVATE_MODULES.values(), *UNDOCUMENTED.values()), ENVIRONMENT, PRECISION}
"""Every file that uses what a library keeps to itself."""
NAMES_AN_ISSUE = re.compile(r"[\w-]+/[\w-]+#\d+|[Nn]o (upstream )?issue found[^.]*\(searched\s+(# )?\d{4}-\d\d-\d\d\)")
"""How a file says which upstream issue would end it: by its number, or by when none was found."""
PUBLIC_OF_NAMED_TUPLES = {"_replace", "_asdict", "_fields", "_make"}
PUBLIC_OF_ENUMS = {"_value_"}
PUBLIC_OF_OS = {"_exit"}
"""Documented in the page of its module, for all its underscore."""


def is_private(name: str) -> bool:
    """Whether a name says by its underscore that it is not for others."""
    return name.startswith("_") and not name.startswith("__")


def own_names(tree: ast.Module) -> set[str]:
    """Attributes that a file sets on itself: another object of the same class may be asked for them."""
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute))
    return {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")}


def private_attributes(tree: ast.Module) -> Iterator[str]:
    """Private attributes of objects that this file has not made its own."""
    known = own_names(tree) | PUBLIC_OF_NAMED_TUPLES | PUBLIC_OF_ENUMS | PUBLIC_OF_OS
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in known:
            yield ast.unparse(node)


def private_imports(tree: ast.Module) -> Iterator[str]:
    """Imports of other projects with a private part in their dotted name."""
    for node in ast.walk(tree):
        for name in imported_modules(node):
            if name.partition(".")[0] not in (*PACKAGES, "__future__") and any(map(is_private, name.split("."))):
                yield name


def private_overrides(tree: ast.Module) -> Iterator[str]:
    """Private methods of Prefect's and MLflow's classes that a class of this file overrides."""
    origins = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ("prefect", "mlflow")
        for alias in node.names
    }
    for one in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for base in (base.id for base in one.bases if isinstance(base, ast.Name) and base.id in origins):
            module, name = origins[base]
            theirs = getattr(import_module(str(module)), name)
            methods = [node.name for node in one.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield from (f"{one.name}.{method}" for method in methods if is_private(method) and hasattr(theirs, method))


def hooks(tree: ast.Module) -> set[str]:
    """Everything private of others that a file uses."""
    return {*private_attributes(tree), *private_imports(tree), *private_overrides(tree)}


def test_private_things_of_others_are_used_in_their_files_alone() -> None:
    found = {file: sorted(hooks(syntax(file))) for file in source_files()}
    assert {file: names for file, names in found.items() if names} == {
        EXIT: ["atexit._run_exitfuncs"],
        PREFECT: ["LeanProcessWorker._worker_metadata", "prefect.runner._starter_engine"],
        MLFLOW_STORE: ["self._store._hard_delete_run"],
        PRECISION: ["optimizer._step_supports_amp_scaling"],
    }


@pytest.mark.parametrize("module", PRIVATE_MODULES)
def test_a_private_module_is_imported_in_its_file_alone(module: str) -> None:
    found = {file for file in source_files() for name in imports_of(file) if f"{name}.".startswith(f"{module}.")}
    assert found == PRIVATE_MODULES[module]


@pytest.mark.parametrize("name", UNDOCUMENTED)
def test_an_undocumented_name_is_used_in_its_file_alone(name: str) -> None:
    assert {file for file in source_files() if name in (ROOT / file).read_text()} == UNDOCUMENTED[name]


def test_private_variables_are_set_in_one_file() -> None:
    found = {
        file
        for file in source_files()
        for node in ast.walk(syntax(file))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith(PRIVATE_VARIABLES)
        and node.value not in PRIVATE_VARIABLES
    }
    assert found == {ENVIRONMENT}


@pytest.mark.parametrize("file", sorted(HOOKED), ids=str)
def test_each_file_names_the_upstream_issue(file: PurePosixPath) -> None:
    text = (ROOT / file).read_text()
    assert "pstream" in text
    assert NAMES_AN_ISSUE.search(text)


@pytest.mark.parametrize(
    "code",
    [
        "import atexit\natexit._run_exitfuncs()",
        "from prefect.runner import _starter_engine",
        "from prefect.workers.process import ProcessWorker as P\nclass W(P):\n  async def _worker_metadata(self): ...",
        "import psycopg\npsycopg.connect()._closed",
    ],
)
def test_a_private_hook_is_seen(code: str) -> None:
    assert hooks(ast.parse(code))
