"""What each package imports is installed with it: by the dependencies of all, or by the extra that it stands for."""

from __future__ import annotations

import ast
import sys

import pytest
from packaging.utils import canonicalize_name

from deployments.cli import COMMANDS, EXTRAS
from tests.architecture.source_tree import PACKAGES, imported_modules, python_files, syntax
from tests.extras import MODELS_AND_PIPELINES, declared, installed_by, modules_of

EXTRAS_OF = {"storage": (), "platform_api": ("api",), "flows": ("worker", "trackers"), "deployments": ("api", "worker")}
"""What each package may import besides the dependencies of all."""
BY_AN_EXTRA_OF_ANOTHER = {"psycopg_pool"}
"""Modules that pyproject.toml asks for by an extra of another distribution: psycopg[pool]."""


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_what_its_extra_asks_for(package: str) -> None:
    allowed = {canonicalize_name(one.name) for one in declared(*EXTRAS_OF[package])}

    statements = (node for file in python_files(package) for node in ast.walk(syntax(file)))
    imported = {name.partition(".")[0] for node in statements for name in imported_modules(node)}
    libraries = imported & modules_of().keys() - {*sys.stdlib_module_names, *PACKAGES, *BY_AN_EXTRA_OF_ANOTHER}

    undeclared = sorted(name for name in libraries if not modules_of()[name] & allowed)
    assert undeclared == [], f"add them to pyproject.toml, for {EXTRAS_OF[package] or 'all'}"


def test_the_api_and_the_command_line_install_nothing_of_models_and_pipelines() -> None:
    assert installed_by("api", "s3").isdisjoint(MODELS_AND_PIPELINES)
    assert installed_by("worker") >= {*MODELS_AND_PIPELINES}


def test_the_command_line_knows_each_extra_by_a_library_that_no_other_installs() -> None:
    for extra, library in EXTRAS.items():
        (other,) = EXTRAS.keys() - {extra}
        assert library in installed_by(extra)
        assert library not in installed_by(other)
    assert {extra for place in COMMANDS.values() for extra in place.extras} <= EXTRAS.keys()
