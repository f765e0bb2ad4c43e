"""The source tree as the architecture tests read it: files, modules, imports and classes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PACKAGES = ("storage", "flows", "platform_api", "deployments")
"""The packages that are installed."""

NAMES_A_MODULE = re.compile(r"[a-z_0-9]+(\.[a-z_0-9]+)+(:\w+)?")
"""What loads a module later: `deployments.commands.jobs.train:train`."""

COMMANDS = "deployments.commands"
"""The command line names its modules from here."""


@cache
def source_files() -> tuple[PurePosixPath, ...]:
    """Every Python file of the installed packages."""
    return python_files(*PACKAGES)


@cache
def python_files(*folders: str) -> tuple[PurePosixPath, ...]:
    """Every Python file below these folders, as a path from the root of the project."""
    return tuple(
        sorted(
            PurePosixPath(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("[!.]*.py")
        )
    )


@cache
def syntax(file: PurePosixPath) -> ast.Module:
    """A file as Python parses it."""
    return ast.parse((ROOT / file).read_text(), str(file))


def module_name(file: PurePosixPath) -> str:
    """The dotted name of a file; of its folder for an `__init__.py`."""
    parts = file.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(node: ast.AST) -> Iterator[str]:
    """What one statement imports, by dotted name: `a.b` and `a.b.c` for `from a.b import c`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def imports_of(file: PurePosixPath) -> frozenset[str]:
    """Everything a file imports by dotted name, and the modules that it names in texts and loads later."""
    found = {name for node in ast.walk(syntax(file)) for name in imported_modules(node)}
    values = (node.value for node in ast.walk(syntax(file)) if isinstance(node, ast.Constant))
    named = [text.partition(":")[0] for text in values if isinstance(text, str) and NAMES_A_MODULE.fullmatch(text)]
    return frozenset((*found, *named, *(f"{COMMANDS}.{name}" for name in named)))
