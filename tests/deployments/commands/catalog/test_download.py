"""darkroom download."""

from __future__ import annotations

from tests.deployments.line import Line

WEIGHTS = b"weights" * 100_000


def test_every_file_of_a_version_comes_and_comes_once(line: Line) -> None:
    version = line.trained()

    first = line("download", version, "--out", "model")
    second = line("download", version, "--out", "model")

    assert first.exit_code == 0, first.output
    assert (line.folder / "model" / "model.safetensors").read_bytes() == WEIGHTS
    assert (line.folder / "model" / "folder" / "model_index.json").read_bytes() == b"{}"
    assert first.output.startswith("2 files fetched, 0 were there; every SHA-256 agrees")
    assert second.output.startswith("0 files fetched, 2 were there")
    assert sorted(path.name for path in (line.folder / "model").rglob("*.part")) == []


def test_a_changed_copy_is_fetched_again(line: Line) -> None:
    version = line.trained()
    line("download", version, "--out", "model")
    (line.folder / "model" / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"?")

    result = line("download", version, "--out", "model", "--weights-only")

    assert result.output.startswith("1 files fetched")
    assert (line.folder / "model" / "model.safetensors").read_bytes() == WEIGHTS


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(line: Line) -> None:
    version = line.trained()
    (line.folder / "model").write_text("a file in the way")

    result = line("download", version, "--out", "model")

    assert result.exit_code == 1
    assert "cannot be written" in result.output
    assert "Traceback" not in result.output
