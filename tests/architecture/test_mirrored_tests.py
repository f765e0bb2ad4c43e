"""Tests stand where one looks for them: `flows/jobs/lifecycle.py` is tested in `tests/flows/jobs/test_lifecycle.py`.

`covered_elsewhere.txt` names the test of every longer module that has none at its own path.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from tests.architecture.source_tree import ROOT, imports_of, module_name, python_files, source_files

SHORT_LINES = 60
"""A module of up to so many lines may be tested through those that use it."""
ELSEWHERE = Path(__file__).with_name("covered_elsewhere.txt")


def covered_elsewhere() -> dict[PurePosixPath, PurePosixPath]:
    """The modules of the list, each with the test that covers it."""
    lines = [line for line in ELSEWHERE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == sorted(set(lines)), f"Sort {ELSEWHERE.name}, each module once."
    return {PurePosixPath(source): PurePosixPath(test) for source, test in (line.split() for line in lines)}


def mirrored_test(source: PurePosixPath) -> PurePosixPath:
    """Where one looks for the test of a module."""
    return PurePosixPath("tests") / source.parent / f"test_{source.name}"


def is_long(source: PurePosixPath) -> bool:
    """Whether a module has so many lines that it needs a test of its own."""
    return len((ROOT / source).read_text().splitlines()) > SHORT_LINES


@cache
def files_by_module() -> dict[str, PurePosixPath]:
    """Every first-party module."""
    return {module_name(file): file for file in (*source_files(), *python_files("tests"))}


def reached_from(test: PurePosixPath) -> set[PurePosixPath]:
    """All that a test and the conftest.py files beside and above it import, however far.

    The outermost conftest.py is left out: what every test reaches through it, none of them is about.
    """
    above = [folder / "conftest.py" for folder in test.parents if folder != PurePosixPath("tests")]
    waiting = [test, *(file for file in above if (ROOT / file).exists())]
    reached = {PurePosixPath("tests/conftest.py")}
    while waiting:
        file = waiting.pop()
        if file not in reached:
            reached.add(file)
            waiting += [files_by_module()[name] for name in imports_of(file) if name in files_by_module()]
    return reached


def test_every_longer_module_has_its_test() -> None:
    elsewhere = covered_elsewhere()
    untested = [
        str(source)
        for source in source_files()
        if is_long(source) and not (ROOT / mirrored_test(source)).exists() and source not in elsewhere
    ]
    assert untested == [], f"Write {mirrored_test(PurePosixPath(untested[0]))}, or add a line to {ELSEWHERE.name}."


def test_the_list_names_only_modules_that_need_it() -> None:
    stale = [
        str(source)
        for source in covered_elsewhere()
        if not (ROOT / source).exists() or not is_long(source) or (ROOT / mirrored_test(source)).exists()
    ]
    assert stale == [], f"Take these off {ELSEWHERE.name}: gone, short, or with a test at their own path."


def test_the_test_that_the_list_names_reaches_the_module() -> None:
    wrong = [
        f"{source} {test}"
        for source, test in covered_elsewhere().items()
        if not (ROOT / test).exists() or not test.name.startswith("test_") or source not in reached_from(test)
    ]
    assert wrong == [], "These tests do not exist, or import nothing that reaches the module."
