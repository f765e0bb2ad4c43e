"""darkroom generate."""

from __future__ import annotations

from pathlib import Path

from tests.deployments.line import Line
from tests.files import image_size


def test_images_of_a_published_version_are_saved(line: Line) -> None:
    version = line.trained()

    result = line.with_worker(
        line.worker.generate, "generate", version, "a photo of a sks mug", "-n", 3, "--seed", 5, "--out", "pictures"
    )

    assert result.exit_code == 0, result.output
    saved = [Path(text) for text in result.output.splitlines() if text.endswith(".png")]
    assert len(saved) == 3
    assert all(path.is_absolute() and image_size(path) == (64, 48) for path in saved)
    assert line.jobs()[0].request["seed"] == 5


def test_an_unknown_version_is_refused_with_its_field(line: Line) -> None:
    result = line("generate", 99, "a photo of a sks mug")

    assert result.exit_code == 1
    assert "error: modelVersionId: No model version 99." in result.output
