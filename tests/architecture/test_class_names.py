"""A class name occurs once in the project: who reads it knows which class is meant.

`repeated_class_names.txt` lists those that occur more often, each with the reason.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

from tests.architecture.source_tree import source_files, syntax

REPEATED = Path(__file__).with_name("repeated_class_names.txt")


def repeated_names() -> dict[str, list[str]]:
    """Class names that occur more than once, each with its files."""
    found: dict[str, list[str]] = defaultdict(list)
    for file in source_files():
        for node in ast.walk(syntax(file)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(str(file))
    return {name: files for name, files in found.items() if len(files) > 1}


def allowed_names() -> dict[str, str]:
    """The names of the list with their reasons."""
    lines = [line for line in REPEATED.read_text().splitlines() if line and not line.startswith("#")]
    return {name: reason.strip() for name, _, reason in (line.partition(":") for line in lines)}


def test_a_class_name_occurs_once() -> None:
    found, allowed = repeated_names(), allowed_names()
    assert {name: files for name, files in found.items() if name not in allowed} == {}
    assert sorted(allowed.keys() - found.keys()) == [], "These occur once by now: take them off the list."


def test_every_repeated_name_has_its_reason() -> None:
    assert [name for name, reason in allowed_names().items() if not reason] == []
