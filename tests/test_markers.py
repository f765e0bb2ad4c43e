"""Marks that tests get by themselves: what is listed as slow exists, and who reads a clock is found."""

from __future__ import annotations

import ast
import re
import tomllib
import warnings
from pathlib import Path

import pytest

from tests.markers import ROOT, SLOW, clock_readers, is_left_out, measured_as_slow, slow_names

SECONDS = {"test_a": {"test_long[x]": 50, "test_short": 0.1}, "test_b": {"test_many": 20}, "test_c": {"test_c": 2000}}


def test_what_is_listed_as_slow_exists() -> None:
    missing = [name for name in sorted(slow_names()) if not exists(name)]
    assert missing == [], f"Take these off {SLOW.name}, or write their new names."


def test_the_list_is_sorted_and_names_nothing_twice() -> None:
    lines = [line for line in SLOW.read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(set(lines))
    whole = {line for line in lines if "::" not in line}
    assert [line for line in lines if "::" in line and line.partition("::")[0] in whole] == []


def exists(name: str) -> bool:
    """Whether there is such a file, and such a test in it."""
    file, _, test = name.partition("::")
    if not (ROOT / file).exists():
        return False
    functions = (
        node.name for node in ast.walk(ast.parse((ROOT / file).read_text())) if isinstance(node, ast.FunctionDef)
    )
    return not test or test in functions


def test_slow_tests_are_named_alone_and_many_short_ones_by_their_file(tmp_path: Path) -> None:
    cases = [(file, test, seconds) for file, tests in SECONDS.items() for test, seconds in tests.items()]
    cases += [("test_b", f"test_many[{number}]", 0.5) for number in range(40)]
    lines = [f'<testcase classname="tests.{file}" name="{test}" time="{time}"/>' for file, test, time in cases]
    report = tmp_path / "report.xml"
    report.write_text(f"<testsuite>{''.join(lines)}</testsuite>")
    slow = ["tests/test_a.py::test_long", "tests/test_b.py::test_many", "tests/test_c.py::test_c"]
    assert measured_as_slow(report) == slow
    report.write_text(report.read_text().replace('time="20"', 'time="0.5"'))
    assert measured_as_slow(report) == [slow[0], "tests/test_b.py", slow[2]]


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("datetime.now(UTC)", True),
        ('"update jobs set at = now()"', True),
        ("time.time()", True),
        ("time.monotonic()", False),
        ("datetime(2026, 3, 10, 12, tzinfo=UTC)", False),
    ],
)
def test_who_reads_a_clock_is_found(tmp_path: Path, text: str, reads: bool) -> None:
    file = tmp_path / "test_file.py"
    file.write_text(f"""
def helper():
    return {text}

@pytest.fixture
def uses():
    return helper()

def test_by_itself(): {text}
def test_by_a_fixture(uses): ...
@pytest.mark.usefixtures("uses")
def test_by_a_mark(): ...
def test_of_nothing(other): ...
""")
    readers = {"helper", "uses", "test_by_itself", "test_by_a_fixture", "test_by_a_mark"}
    assert clock_readers(file) == (readers if reads else set())
    everywhere = tmp_path / "test_everywhere.py"
    everywhere.write_text(file.read_text().replace("@pytest.fixture", "@pytest.fixture(autouse=True)"))
    assert clock_readers(everywhere) == (readers | {"test_of_nothing"} if reads else set())


@pytest.mark.parametrize(
    ("selected", "left_out"),
    [("clock and not platform and not soak", True), ("not clock", False)],
)
def test_files_that_read_no_clock_are_not_imported_for_those_that_do(
    tmp_path: Path, selected: str, left_out: bool
) -> None:
    for name, text in (("test_reader.py", "time.time()"), ("test_other.py", "1"), ("conftest.py", "1")):
        tmp_path.joinpath(name).write_text(f"def test_it(): {text}\n")
    found = [path.name for path in sorted(tmp_path.iterdir()) if is_left_out(path, selected)]
    assert found == (["test_other.py"] if left_out else [])


def test_a_warning_is_an_error() -> None:
    for category in (DeprecationWarning, UserWarning, ResourceWarning, FutureWarning):
        with pytest.raises(category):
            warnings.warn_explicit("Use another.", category, "library.py", 1, module="library")


def test_each_warning_that_is_none_is_named_by_its_message() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    first, *exceptions = settings["filterwarnings"]
    assert first == "error"
    assert [one for one in exceptions if not re.fullmatch(r"ignore:[^:]{20,}:[A-Za-z.]+(:.+)?", one)] == []
