"""Marks that no test has to give itself: what starts a platform, what was measured as slow, what reads a clock.

After a whole run with `--junit-xml=REPORT`, `python -m tests.markers REPORT` prints the new list of slow tests.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
SLOW = Path(__file__).with_name("slow.txt")
PLATFORM_FOLDERS = tuple(f"tests/{name}" for name in ("faults/", "attacks/", "deployments/"))
PLATFORM_FIXTURES = {"bench", "platform"}
"""What starts a whole platform, in those folders; `bench` of tests/contracts is one search engine."""
SERVER_FIXTURES = {"prefect_server", "mlflow_settings", "elasticsearch_url", "comfyui_server"}
"""Servers that take seconds to start."""
READS_A_CLOCK = re.compile(r"datetime\.now|date\.today|time\.time\(|\bnow\(\)|current_date|current_timestamp")
SLOW_TEST = 1 / 2400
SLOW_FILE = 1 / 190
"""From what share of a whole run on a test is slow, and what remains of a file without its slow tests; about 0.8 s and
10 s on two quiet cores. As shares, because a busy machine stretches all alike."""


@cache
def slow_names() -> frozenset[str]:
    """Files and tests that were measured as slow."""
    return frozenset(line for line in SLOW.read_text().splitlines() if line and not line.startswith("#"))


@cache
def clock_readers(file: Path) -> frozenset[str]:
    """What of a file's functions, classes and constants asks what time it is, in Python or in SQL: itself, or by what
    it uses of the file. What every test uses by itself (`autouse`) makes readers of all."""
    text = file.read_text()
    parts = {name: part for part in ast.parse(text).body for name in _names_of(part)}
    readers = {name for name, part in parts.items() if READS_A_CLOCK.search(ast.get_source_segment(text, part) or "")}
    found = 0
    while found < len(readers):
        found = len(readers)
        readers |= {name for name, part in parts.items() if _used_by(part) & readers}
    if any(
        "autouse" in (ast.get_source_segment(text, one) or "") for name in readers for one in _decorators(parts[name])
    ):
        return frozenset(parts)
    return frozenset(readers)


def _names_of(part: ast.stmt) -> list[str]:
    """What a statement of a module defines."""
    if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [part.name]
    targets = part.targets if isinstance(part, ast.Assign) else [part.target] if isinstance(part, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _decorators(part: ast.stmt) -> list[ast.expr]:
    return part.decorator_list if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) else []


def _used_by(part: ast.stmt) -> set[str]:
    """Every name in a statement; a fixture is a parameter's, or a text of `usefixtures`."""
    nodes = list(ast.walk(part))
    names = {node.id for node in nodes if isinstance(node, ast.Name)} | {n.arg for n in nodes if isinstance(n, ast.arg)}
    return names | {str(node.value) for node in nodes if isinstance(node, ast.Constant)}


def reads_a_clock(item: pytest.Item) -> bool:
    """Whether a test asks what time it is, itself or by what it uses of its file."""
    name = item.nodeid.partition("::")[2].partition("::")[0].partition("[")[0]
    return name in clock_readers(item.path)


def starts_a_platform(item: pytest.Item) -> bool:
    """Whether a test runs a whole platform."""
    fixtures = getattr(item, "fixturenames", ())
    return item.nodeid.startswith(PLATFORM_FOLDERS) and bool(PLATFORM_FIXTURES & {*fixtures})


def is_slow(item: pytest.Item) -> bool:
    """Whether a test is none that one runs while working: it starts a server, or took long when it was measured."""
    file, test = item.nodeid.partition("::")[0], item.nodeid.partition("[")[0]
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    starts_a_server = SERVER_FIXTURES & {*getattr(item, "fixturenames", ())} or "elasticsearch" in parameters.values()
    return bool(starts_a_server) or bool(slow_names() & {file, test})


def is_left_out(file: Path, selected: str) -> bool:
    """Whether a file is not even imported, because all of it is slow and no slow test is selected, or because none of
    it reads a clock and only those that do are."""
    if not (file.is_file() and file.name.startswith("test_")):
        return False
    if "not slow" in selected and str(file.relative_to(ROOT)) in slow_names():
        return True
    return re.search(r"(?<!not )\bclock\b", selected) is not None and not clock_readers(file)


def mark(item: pytest.Item) -> None:
    """Give a test the marks that are not written beside it."""
    if starts_a_platform(item):
        item.add_marker("platform")
    if starts_a_platform(item) or is_slow(item):
        item.add_marker("slow")
    # Every file of tests is parsed for this, by each process: only when somebody asks.
    if "clock" in item.config.option.markexpr and reads_a_clock(item):
        item.add_marker("clock")


def measured_as_slow(report: Path) -> list[str]:
    """The slow tests and files of a whole run, from its JUnit report."""
    seconds: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        file = case.attrib["classname"].replace(".", "/") + ".py"
        seconds[file][case.attrib["name"].partition("[")[0]].append(float(case.attrib["time"]))
    whole = sum(sum(times) for tests in seconds.values() for times in tests.values())
    found: list[str] = []
    for file, tests in seconds.items():
        slow = [test for test, times in tests.items() if max(times) > whole * SLOW_TEST]
        rest = sum(sum(times) for test, times in tests.items() if test not in slow)
        found += [file] if rest > whole * SLOW_FILE else [f"{file}::{test}" for test in slow]
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.write("# Measured as slow; made by `python -m tests.markers REPORT`.\n")
    sys.stdout.write("\n".join(measured_as_slow(Path(sys.argv[1]))) + "\n")
