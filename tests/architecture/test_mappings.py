"""A channel, a family, a method, an optimizer, a tracker or a backend is one file and one line.

The tree is copied, a toy of each is added there, and all of it is used there: photos become a model by the toys, and a
notification reaches the toy channel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL

from storage.records.jobs.choices import (
    Choice,
    GenerationBackend,
    ModelFamily,
    TrackerName,
    TrainingMethod,
    TrainingOptimizer,
)
from storage.records.notifications.channels import OUTWARD
from tests.architecture.source_tree import PACKAGES, ROOT
from tests.flows import conftest

TOYS = Path(__file__).with_name("toys")
CHOICES = "storage/records/jobs/choices.py"
CHANNELS = "storage/records/notifications/channels.py"


@dataclass(frozen=True)
class Toy:
    """One file, where it goes, and one line behind the last of `owner`'s in `mapping`."""

    file: str
    folder: str
    mapping: str
    owner: str
    line: str


EACH = (
    Toy("family.py", "flows/diffusion/families", CHOICES, "ModelFamily", 'TOY = "toy", "A toy.", "Toy 1.0", 64'),
    Toy("method.py", "flows/training/methods", CHOICES, "TrainingMethod", 'TOY = "toy", "A toy."'),
    Toy("optimizer.py", "flows/training/optimizers", CHOICES, "TrainingOptimizer", 'TOY = "toy", "A toy."'),
    Toy("tracker.py", "flows/training/tracking", CHOICES, "TrackerName", 'TOY = "toy", "A toy."'),
    Toy("backend.py", "flows/generation/backends", CHOICES, "GenerationBackend", 'TOY = "toy", "A toy."'),
    Toy(
        "channel.py",
        "flows/notifications/channels",
        CHANNELS,
        "Channel",
        'TOY = "toy", "A toy.", Outward(form=forms.text_address(r"file:[\\w/.-]+", "file:/tmp/told"), called="toy")',
    ),
)
RUNS = {"notified.py": "tests/platform_api/notifications", "trained.py": "tests/flows/training"}
"""What uses the toys, and where its fixtures are."""


prefect_server = conftest.prefect_server


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of the tree with a toy of each."""
    copy = tmp_path_factory.mktemp("tree") / "darkroom"
    copy.mkdir()
    for name in (*PACKAGES, "tests", "docs"):
        # With the bytecode, which is good for a copy too: compiling all once more takes a fifth of the test's time.
        shutil.copytree(ROOT / name, copy / name)
    for name in ("prefect.yaml", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, copy)
    for toy in EACH:
        add(toy, copy)
    for name, folder in RUNS.items():
        shutil.copy(TOYS / name, copy / folder / f"test_{name}")
    yield copy
    shutil.rmtree(copy)


def add(toy: Toy, copy: Path) -> None:
    """Put a toy's file and line into the tree."""
    shutil.copy(TOYS / toy.file, copy / toy.folder / "toy.py")
    mapping = copy / toy.mapping
    before, head, after = mapping.read_text().partition(f"\nclass {toy.owner}(")
    body, end, rest = after.partition("\n\n\n")
    mapping.write_text(f"{before}{head}{body}\n    {toy.line}{end}{rest}")


@pytest.mark.usefixtures("prefect_server")
def test_a_toy_of_each_is_one_file_and_one_line(tree: Path) -> None:
    tests = [f"{folder}/test_{name}" for name, folder in RUNS.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["PREFECT_API_URL"] = str(PREFECT_API_URL.value())
    ran = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-2000:]


@pytest.mark.parametrize(
    ("package", "names", "offers"),
    [
        ("flows.diffusion.families", ModelFamily, "FAMILY"),
        ("flows.training.methods", TrainingMethod, "METHOD"),
        ("flows.training.optimizers", TrainingOptimizer, "OPTIMIZER"),
        ("flows.training.tracking", TrackerName, "TRACKER"),
        ("flows.generation.backends", GenerationBackend, "BACKEND"),
        ("flows.notifications.channels", OUTWARD, "sender"),
    ],
)
def test_each_name_has_its_file(package: str, names: type[Choice], offers: str) -> None:
    for name in names:
        found = find_spec(f"{package}.{name}")
        assert found is not None, f"{package}.{name} has a line and no file"
        assert found.origin is not None
        text = Path(found.origin).read_text()
        assert f"\n{offers}: " in text or f"\ndef {offers}(" in text, f"{found.origin} offers no {offers}"
