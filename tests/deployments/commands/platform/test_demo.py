"""darkroom demo: its photos, and in the soak the whole of it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deployments.commands.platform.demo import PHOTOS, draw_photos, in_english
from flows.starter.world import held_out_subjects
from tests.deployments.platform import Platform
from tests.files import image_size


def test_the_photos_of_two_seeds_differ_and_each_is_a_file_of_its_own(tmp_path: Path) -> None:
    subject = held_out_subjects()[0]

    first = draw_photos(subject, tmp_path / "first", 1)
    second = draw_photos(subject, tmp_path / "second", 2)

    assert len({path.name for path in first}) == PHOTOS
    assert {path.read_bytes() for path in first}.isdisjoint(path.read_bytes() for path in second)
    assert all(image_size(path) == (64, 64) for path in first)


def test_a_subject_is_told_in_words() -> None:
    assert in_english(held_out_subjects()[0]) == "a zigzag yellow mug with blue"


@pytest.fixture
def empty_platform() -> Iterator[Platform]:
    """A data folder with nothing in it and free ports; everything that runs on it is killed at the end."""
    platform = Platform(Path(tempfile.mkdtemp(prefix="dr-")), {"OMP_NUM_THREADS": "2"})
    yield platform
    platform.kill_everything()
    shutil.rmtree(platform.folder, ignore_errors=True)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_the_demo_ends_with_a_grid_and_leaves_the_platform_running(empty_platform: Platform) -> None:
    first = empty_platform.cli("demo", timeout=900)
    second = empty_platform.cli("demo", timeout=900)

    for run in (first, second):
        assert run.returncode == 0, run.stdout + run.stderr
        lines = run.stdout.splitlines()
        grid = Path(lines[-1])
        assert grid.is_absolute()
        assert image_size(grid)[0] > 1_000
        assert empty_platform.settings.prefect.ui_url in run.stdout
        assert empty_platform.settings.mlflow.url in run.stdout
        assert f"{empty_platform.api_url}/docs" in run.stdout
        assert "make down" in run.stdout
    assert first.stdout.splitlines()[-1] != second.stdout.splitlines()[-1]
    assert empty_platform.cli("status").returncode == 0
    assert empty_platform.cli("check").returncode == 0
    assert empty_platform.cli("down").returncode == 0
