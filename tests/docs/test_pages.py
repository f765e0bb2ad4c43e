"""The pages tell the truth: paths, settings, commands, targets, routes and figures that they name exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deployments import settings_table
from deployments.cli import COMMANDS, load
from storage.setting_names import RENAMED
from tests.docs import api
from tests.docs.command_line import targets, wrong_with_inline
from tests.docs.pages import PAGES, ROOT, anchors, code_spans, name_of, prose, written

PAGE = pytest.mark.parametrize("page", PAGES, ids=name_of)
FOLDERS = "tests|deployments|storage|flows|platform_api|benchmarks|docs"
OF_COMPOSE = set(re.findall(r"\bDARKROOM_\w+", (ROOT / "deployments" / "compose.env.example").read_text()))
MADE_BY_OPERATORS = {"deployments/settings.env", "deployments/compose.env", "deployments/compose.release.yaml"}
GONE = {"DARKROOM_REDIS__PORT", *RENAMED}
"""Settings that a page names to say that they are not read any more."""
SOURCE = "\n".join(
    path.read_text()
    for package in ("storage", "flows", "platform_api", "deployments")
    for path in (ROOT / package).rglob("*.py")
)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@PAGE
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    named = [span for span in code_spans(prose(page)) if re.fullmatch(rf"(?:{FOLDERS})/[\w/.-]*", span)]
    missing = {path for path in named if "NNNN" not in path and not (ROOT / path).exists()}
    assert missing <= MADE_BY_OPERATORS


@PAGE
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    known = {variable for variable, *_ in settings_table.rows()} | OF_COMPOSE | GONE
    named = re.findall(r"\bDARKROOM_[A-Z0-9_]+(?:\.\.\.)?", written(page))
    wrong = [
        name
        for name in named
        if name not in known
        and name.rstrip("_.") != "DARKROOM"
        and not (name.endswith("_...") and any(one.startswith(name[:-3]) for one in known))
    ]
    assert wrong == []


@PAGE
def test_every_command_and_target_that_a_page_names_in_its_text_exists(page: Path) -> None:
    spans = code_spans(prose(page))
    assert [wrong for span in spans if (wrong := wrong_with_inline(span))] == []


@PAGE
def test_every_route_that_a_page_names_exists(page: Path) -> None:
    named = [
        path
        for span in code_spans(prose(page))
        for path in re.findall(r"(?:^|(?<=\s))(/(?:api/|health|metrics|docs|schema)[\w/{}.-]*)", span)
    ]
    unknown = [path for path in named if path not in api.OUTSIDE_THE_DOCUMENT and api.operations(path) is None]
    assert unknown == []


@PAGE
def test_every_figure_that_a_page_names_is_one_of_ours(page: Path) -> None:
    pattern = r"darkroom_[a-z_]+_(?:total|seconds|timestamp|bytes)\b"
    named = {name for span in code_spans(prose(page)) for name in re.findall(pattern, span)}
    stems = {name: name.removeprefix("darkroom_").removesuffix("_total") for name in named}
    assert [name for name, stem in stems.items() if stem not in SOURCE] == []


@PAGE
def test_every_link_inside_leads_somewhere(page: Path) -> None:
    broken: list[str] = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_command_of_the_command_line_is_in_the_reference() -> None:
    reference = (ROOT / "docs" / "reference" / "commands.md").read_text()
    for name in COMMANDS:
        assert f"## darkroom {name}\n" in reference
        for inner in getattr(load(name), "commands", {}):
            assert f"### darkroom {name} {inner}\n" in reference


def test_contributors_read_of_every_target_that_checks() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    checking = {target for target in targets() if target.startswith(("check", "format", "test", "soak", "docs"))}
    assert {"check", "test", "docs"} <= checking
    assert {target for target in checking if f"make {target} " not in contributing} == set()
