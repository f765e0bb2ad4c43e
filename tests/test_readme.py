"""README tells the truth: settings, promises' tests, commands and make targets that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from deployments import settings_table
from deployments.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_settings() -> None:
    assert settings_table.shown_in(README) == settings_table.table(), (
        "run: python -m deployments.settings_table --write"
    )


def test_every_setting_says_what_it_means() -> None:
    assert [variable for variable, _, meaning in settings_table.rows() if len(meaning) < 15] == []


def test_every_path_that_readme_names_exists() -> None:
    named = set(re.findall(r"`((?:tests|deployments|storage|flows|benchmarks)/[\w/.]+)`", README))
    named |= set(re.findall(r"\]\(([\w/.]+)\)", README))
    assert len(named) > 10
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_every_command_that_readme_names_exists() -> None:
    commands = set(re.findall(r"\bdarkroom ([a-z]+)\b", README))
    assert commands
    assert commands <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", README)) <= targets
