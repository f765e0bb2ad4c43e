"""Folders and files are small, and folders are shallow, and cut by the same areas in every package."""

from __future__ import annotations

from collections import defaultdict
from pathlib import PurePosixPath

import pytest

from tests.architecture.source_tree import PACKAGES, ROOT, python_files, source_files

MAX_MODULES = 20
MAX_FOLDERS = 4
CODE = {".py", ".sql", ".lua"}
"""Endings of what belongs to a module: `jobs.py` and `jobs.sql` are one."""
AREAS = {
    "policy",
    "events",
    "accounts",
    "jobs",
    "generation",
    "orchestration",
    "catalog",
    "search",
    "social",
    "moderation",
    "notifications",
    "metrics",
    "economy",
    "upkeep",
}
"""The subjects that each package is cut by."""
ROOMS = {
    "storage/records": set[str](),
    "storage/postgres": {"migrations"},
    "platform_api": {"http", "access", "streams", "cache"},
    "deployments/commands": {"platform"},
}
"""What stands beside the areas because every area shares it."""
SHARED_MODULES = {
    "storage/records": set[str](),
    "storage/postgres": {"connection", "failures", "locks", "lookup_tables", "migrating"},
    "platform_api": {"app", "openapi"},
    "deployments/commands": {"operator", "tables"},
}
"""Modules in no area because every area uses them."""
TEST_KINDS = {"architecture", "attacks", "contracts", "docs", "faults", "gpu", "properties"}
"""Folders of tests that belong to no single folder of source."""
REFUSED_NAMES = {"utils", "util", "common", "helpers", "core", "base", "manager", "misc"}
"""Names that say nothing: what stands there belongs to a concept that has no name yet."""
NAMED_FOR_A_COMMAND = {PurePosixPath("deployments/commands/jobs/base.py")}
"""Modules with a name of that list that is the word a user types: `darkroom base`."""
MAX_LINES = 300
LONG_FILES = {
    "storage/settings.py": "a table: each setting with its limits and its meaning, and all that reads the environment",
    "storage/errors.py": "the one tree of errors, drawn in its docstring",
    "storage/postgres/connection.py": "what a script is, and its two drivers, sync and async, that must do the same",
    "storage/postgres/jobs/jobs.py": "every transition of a job's state, so that one can see that none is missing",
    "storage/postgres/metrics/rollups.sql": "the SQL of one module",
    "platform_api/http/problems.py": "errors with statuses, responses and examples; its folder has no room for another",
}
"""Files of over 300 lines, each with its reason. Take lines off this list; add none."""


def modules() -> dict[PurePosixPath, set[str]]:
    """The modules of each folder of source; migrations are a log, not modules."""
    found: dict[PurePosixPath, set[str]] = defaultdict(set)
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*"):
            if path.suffix in CODE and path.name != "__init__.py" and "migrations" not in path.parts:
                found[PurePosixPath(path.parent.relative_to(ROOT))].add(path.stem)
    return found


def long_files() -> dict[str, int]:
    """The files of source over the limit, with their lines; migrations are a log."""
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*") if path.suffix in CODE)
    lines = {path.relative_to(ROOT): len(path.read_text().splitlines()) for path in files}
    return {str(file): count for file, count in lines.items() if count > MAX_LINES and "migrations" not in file.parts}


def folders_in(base: str) -> set[str]:
    """The names of the folders with Python or SQL directly in a folder."""
    return {path.parent.name for ending in ("py", "sql") for path in (ROOT / base).glob(f"*/*.{ending}")}


def test_no_folder_has_more_modules_than_one_can_overlook() -> None:
    too_many = {str(folder): len(names) for folder, names in modules().items() if len(names) > MAX_MODULES}
    assert too_many == {}, f"Cut these folders at an idea: at most {MAX_MODULES} modules stand in one."


def test_no_file_has_more_lines_than_one_can_overlook_but_the_listed_ones() -> None:
    too_long = {file: lines for file, lines in long_files().items() if file not in LONG_FILES}
    assert too_long == {}, f"Cut these files at an idea: at most {MAX_LINES} lines stand in one."


def test_the_list_of_long_files_names_none_that_is_short_by_now() -> None:
    assert LONG_FILES.keys() - long_files().keys() == set(), "Take them off the list."


def test_no_folder_is_deeper_than_four() -> None:
    too_deep = [str(file) for file in source_files() if len(file.parent.parts) > MAX_FOLDERS]
    assert too_deep == []


@pytest.mark.parametrize("base", ROOMS)
def test_folders_are_areas_or_named_rooms(base: str) -> None:
    assert folders_in(base) - AREAS == ROOMS[base]


@pytest.mark.parametrize("base", ROOMS)
def test_no_module_stands_outside_an_area_but_the_shared_ones(base: str) -> None:
    assert modules().get(PurePosixPath(base), set()) == SHARED_MODULES[base]


@pytest.mark.parametrize("package", PACKAGES)
def test_test_folders_are_folders_of_source(package: str) -> None:
    sources = {file.parent for file in source_files()}
    tests = {file.parent.relative_to("tests") for file in python_files(f"tests/{package}")}
    assert tests - sources == set()


def test_tests_of_no_single_folder_are_of_a_named_kind() -> None:
    assert folders_in("tests") - set(PACKAGES) - TEST_KINDS == set()


def test_no_folder_or_module_has_a_name_that_says_nothing() -> None:
    found = {
        str(file)
        for file in python_files(*PACKAGES, "tests", "benchmarks")
        if REFUSED_NAMES & {*file.with_suffix("").parts} and file not in NAMED_FOR_A_COMMAND
    }
    assert found == set()


def test_init_files_are_empty() -> None:
    filled = {
        file
        for file in python_files(*PACKAGES, "tests", "benchmarks")
        if file.name == "__init__.py" and (ROOT / file).read_text().strip()
    }
    assert filled == set()
