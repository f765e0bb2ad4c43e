"""How the source is cut, beside an earlier commit: measured by one script on both trees.

    python -m benchmarks.structure [COMMIT]      # the commit before the areas when none is given

Counts files and lines; the time that a training process takes to import what it needs is measured five times in turn,
each in a process of its own, with both trees' code and this environment's libraries.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEFORE = "0ba3631"
"""The commit before packages were cut by areas."""
PACKAGES = ("storage", "flows", "platform_api", "deployments")
TRAINING = """
from importlib.util import find_spec
import flows.training.dreambooth
steps = "flows.training.dreambooth_steps"
find_spec(steps) and __import__(steps)
"""
"""What a training process imports: the flow, and its steps in trees where they stand apart."""
TIMES = 5


def source_files(tree: Path) -> Iterator[Path]:
    """Python files of the installed packages."""
    for package in PACKAGES:
        yield from (path for path in sorted((tree / package).rglob("*.py")))


def modules_per_folder(tree: Path) -> Counter[Path]:
    """Modules of each folder: a `.py` with its `.sql` or `.lua` is one; migrations and `__init__.py` are left out."""
    found: set[tuple[Path, str]] = set()
    for package in PACKAGES:
        for path in (tree / package).rglob("*"):
            if path.suffix in (".py", ".sql", ".lua") and path.stem != "__init__" and "migrations" not in path.parts:
                found.add((path.parent, path.stem))
    return Counter(folder for folder, _ in found)


def function_lengths(tree: Path) -> list[int]:
    """Lines of every function and method, nested ones too."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = (node for path in source_files(tree) for node in ast.walk(ast.parse(path.read_text())))
    return [(node.end_lineno or node.lineno) - node.lineno + 1 for node in nodes if isinstance(node, kinds)]


def class_names(tree: Path) -> Counter[str]:
    """How often each class name occurs."""
    nodes = (node for path in source_files(tree) for node in ast.walk(ast.parse(path.read_text())))
    return Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))


def mirrored_share(tree: Path) -> float:
    """Share (%) of modules over 60 lines whose test stands at the same path below tests/."""
    long = [path for path in source_files(tree) if len(path.read_text().splitlines()) > 60]
    tests = (tree / "tests" / path.relative_to(tree).parent / f"test_{path.name}" for path in long)
    return 100 * sum(test.exists() for test in tests) / len(long)


def comment_share(tree: Path) -> float:
    """Share (%) of lines that are a comment alone."""
    lines = [line for path in source_files(tree) for line in path.read_text().splitlines()]
    return 100 * sum(bool(re.match(r"\s*#", line)) for line in lines) / len(lines)


def counted(tree: Path) -> Mapping[str, float]:
    """Everything that is counted of one tree, by name."""
    folders, functions = modules_per_folder(tree), function_lengths(tree)
    sizes = [len(path.read_text().splitlines()) for path in source_files(tree) if path.name != "__init__.py"]
    return {
        "modules_in_the_largest_folder": max(folders.values()),
        "folders_over_20_modules": sum(count > 20 for count in folders.values()),
        "file_lines_median": statistics.median(sizes),
        "file_lines_p90": statistics.quantiles(sizes, n=10)[-1],
        "files_over_300_lines": sum(size > 300 for size in sizes),
        "function_lines_median": statistics.median(functions),
        "function_lines_p90": statistics.quantiles(functions, n=10)[-1],
        "functions_over_60_lines": sum(length > 60 for length in functions),
        "repeated_class_names": sum(count > 1 for count in class_names(tree).values()),
        "mirrored_tests_percent": mirrored_share(tree),
        "comment_lines_percent": comment_share(tree),
    }


def import_seconds(tree: Path) -> float:
    """Seconds of wall time that a process takes to import the training flow."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", TRAINING], cwd=tree, check=True, capture_output=True)
    return time.perf_counter() - began


def figure(name: str, ours: float, theirs: float, goal: str = "no goal") -> None:
    """One line for a figure of this tree beside the other's."""
    ratio = f"{ours / theirs:.2f}" if theirs else "-"
    print(f"figure {name} {ours:g} {theirs:g} {ratio} {goal}")


def main() -> None:
    """Print both trees side by side."""
    commit = sys.argv[1] if len(sys.argv) > 1 else BEFORE
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder)
        with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
            packed.extractall(before, filter="data")
        now, then = counted(ROOT), counted(before)
        times = [(import_seconds(ROOT), import_seconds(before)) for _ in range(TIMES)]
    for name, ours in now.items():
        goals = {"folders_over_20_modules": "goal <=0", "modules_in_the_largest_folder": "goal <=20"}
        figure(name, round(ours, 1), round(then[name], 1), goals.get(name, "no goal"))
    for which, seconds in zip(("now", "before"), zip(*times, strict=True), strict=True):
        print(f"import of the training flow, {which}: {', '.join(f'{one:.1f}' for one in seconds)} s")
    ours, theirs = (statistics.median(seconds) for seconds in zip(*times, strict=True))
    figure("import_training_seconds", round(ours, 2), round(theirs, 2))


if __name__ == "__main__":
    main()
