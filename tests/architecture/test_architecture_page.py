"""docs/architecture.md draws the folders that there are, and marks as planned those that there are not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = ("storage", "flows", "platform_api", "deployments")
WEIGHTS = ROOT / "deployments" / "local" / "starter"


@dataclass(frozen=True)
class Drawn:
    """A folder of the drawing, and whether it is only planned."""

    path: str
    planned: bool


def tree(text: str) -> list[Drawn]:
    """The folders of a drawing: two spaces deeper is inside; a line may name several; `planned` begins its comment."""
    inside: list[str] = []
    found: list[Drawn] = []
    for line in text.splitlines():
        names = re.match(r"( *)((?:[\w-]+/(?: |$))+) *(.*)", line)
        if not names:
            continue
        depth, comment = len(names[1]) // 2, names[3]
        folders = [name.rstrip("/") for name in names[2].split()]
        paths = ["/".join([*inside[:depth], folder]) for folder in folders]
        found += [Drawn(path, comment.startswith("planned")) for path in paths]
        inside = [*inside[:depth], folders[-1]]
    return found


def drawn() -> list[Drawn]:
    """The folders of the page's drawing."""
    return tree(PAGE.split("## The tree")[1].split("```")[1])


def folders() -> set[str]:
    """Every folder of source, below the weights of the starter model none."""
    return {
        place.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for place in [ROOT / package, *(ROOT / package).rglob("*")]
        if place.is_dir() and "__pycache__" not in place.parts and WEIGHTS not in place.parents
    }


def test_every_folder_that_is_drawn_exists_unless_it_is_planned() -> None:
    assert [one.path for one in drawn() if not one.planned and one.path not in folders()] == []


def test_no_folder_that_exists_is_marked_as_planned() -> None:
    assert [one.path for one in drawn() if one.planned and one.path in folders()] == []


def test_every_folder_of_source_is_drawn() -> None:
    assert folders() - {one.path for one in drawn()} == set()


def test_no_folder_is_drawn_twice() -> None:
    paths = [one.path for one in drawn()]
    assert sorted(set(paths)) == sorted(paths)


def test_a_drawing_is_read_as_it_is_indented() -> None:
    text = "a/            words\n  b/ c/\n    d/        planned: later\n\ne/"
    assert tree(text) == [
        Drawn("a", False),
        Drawn("a/b", False),
        Drawn("a/c", False),
        Drawn("a/c/d", True),
        Drawn("e", False),
    ]
