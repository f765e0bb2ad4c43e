"""darkroom base. What is taken and refused is tested in tests/deployments/base_models/test_registration.py."""

from __future__ import annotations

from tests.deployments.line import Line


def test_the_registered_bases_are_listed(line: Line) -> None:
    result = line("base", "list")

    assert result.exit_code == 0
    assert "starter  sd1     64" in result.output
    assert "mug, cat" in result.output
    assert line("base", "list", "--replaced").output.startswith("no base model was replaced")


def test_a_folder_that_is_no_model_is_an_error_that_says_what_to_do(line: Line) -> None:
    result = line("base", "add", line.photos(), "--name", "photos")

    assert result.exit_code == 1
    assert "has no model_index.json" in result.output
    assert "darkroom base add FILE --config FOLDER" in " ".join(result.output.split())
    assert "Traceback" not in result.output
