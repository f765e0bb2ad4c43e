"""What the extras of pyproject.toml install, and processes that can import nothing else.

The versions are those of this environment, which has all extras: what a library asks for is read from its metadata.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MODELS_AND_PIPELINES = (
    *("torch", "diffusers", "transformers", "sentence-transformers", "pytorch-lightning", "accelerate"),
    *("mlflow", "prefect", "dask", "distributed"),
)
"""Distributions that the worker alone has."""
HIDING = """
import sys
from importlib.machinery import PathFinder

HIDDEN = frozenset({hidden})

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Hiding
"""
"""Python runs `sitecustomize` before anything else."""


def declared(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for itself, by the dependencies of all and by these extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return [Requirement(text) for text in texts]


@cache
def installed_by(*extras: str) -> frozenset[str]:
    """The distributions, by canonical name, that `pip install .[EXTRAS]` installs, also those asked for in turn."""
    found: set[str] = set()
    waiting, seen = declared(*extras), set[tuple[str, frozenset[str]]]()
    while waiting:
        requirement = waiting.pop()
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        try:
            asked = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed here
        found.add(name)
        waiting += [one for one in map(Requirement, asked) if _holds(one, wanted)]
    return frozenset(found)


def _holds(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement of a distribution counts here when that is asked for with `extras`."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


@cache
def modules_of() -> dict[str, frozenset[str]]:
    """For each top-level module that is installed, the distributions that it comes from."""
    known = packages_distributions().items()
    return {module: frozenset(map(canonicalize_name, names)) for module, names in known}


def hidden_without(*extras: str) -> Iterator[str]:
    """The top-level modules that an environment with these extras does not have."""
    kept = {*installed_by(*extras), "darkroom", "pip"}
    return (name for name, names in modules_of().items() if not names & kept)


def environment_of(folder: Path, *extras: str) -> dict[str, str]:
    """Variables for a process that can import what these extras install, and nothing else; `folder` is made for it."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDING.format(hidden=sorted(hidden_without(*extras))))
    return {"PYTHONPATH": f"{folder}:{ROOT}"}
