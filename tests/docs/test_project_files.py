"""The workflow, the hooks, the editor's settings and the container do what the Makefile and .ci/run do."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from pathlib import Path

import yaml

from tests.docs.command_line import targets

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_workflow_does_what_the_continuous_integration_does() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]

    assert [step["run"] for step in steps if "run" in step] == [".ci/run"]
    assert workflow["permissions"] == {"contents": "read"}
    [checkout] = [step for step in steps if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"]["fetch-depth"] == 0, "the baseline's commit must be there"


def test_every_action_is_pinned_by_its_commit_and_says_its_release() -> None:
    lines = (ROOT / ".github" / "workflows" / "ci.yml").read_text().splitlines()
    used = [line for line in lines if "uses:" in line]
    assert used
    assert [line for line in used if not re.search(r"@[0-9a-f]{40} # v[\d.]+$", line)] == []


def recipe(target: str) -> list[str]:
    """The commands of a target, without the folder of their programs."""
    makefile = (ROOT / "Makefile").read_text()
    [lines] = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", makefile, flags=re.MULTILINE)
    return [line.strip().removeprefix("$(BIN)/") for line in lines.splitlines()]


def test_hooks_run_what_make_check_and_make_docs_run() -> None:
    [repository] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]

    assert repository["repo"] == "local"
    entries = [hook["entry"].removeprefix(".venv/bin/") for hook in repository["hooks"]]
    assert set(entries) <= {*recipe("check"), *recipe("docs")}


def test_the_editor_breaks_lines_where_the_linter_does() -> None:
    parser = configparser.ConfigParser()
    parser.read_string("[top]\n" + (ROOT / ".editorconfig").read_text())
    assert parser["*"]["max_line_length"] == str(PYPROJECT["tool"]["ruff"]["line-length"])


def test_the_container_has_the_python_of_the_image_and_is_not_root() -> None:
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    base = (ROOT / ".devcontainer" / "Dockerfile").read_text()
    [version] = re.findall(r"^FROM python:([\d.]+)-", (ROOT / "deployments" / "Dockerfile").read_text(), re.MULTILINE)

    assert f"FROM python:{version}-" in base
    assert f"USER {container['remoteUser']}\n" in base
    assert container["postCreateCommand"].removeprefix("make ") in targets()
