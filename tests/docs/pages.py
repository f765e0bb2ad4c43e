"""What the documentation's tests read: pages, and the blocks, commands, tables and links in them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
)
GENERATED = re.compile(r"<!-- generated: [a-z-]+ -->\n.*?<!-- generated: end -->", flags=re.DOTALL)
FENCE = re.compile(r"(?:<!-- ([^>]*) -->\n)?^```(\w*)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)
SHELLS = ("sh", "bash", "console")
STRUCTURE = ("for", "do", "done", "if", "fi", "(", ")", "export", "unset", "set", "cd", "exit")
"""Words that begin a line of shell that runs no program."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment directly above it."""

    page: str
    language: str
    text: str
    comment: str


@dataclass(frozen=True)
class Command:
    """One program call of a shell block: its words without variables in front, and why it is not run, if it is not."""

    page: str
    words: tuple[str, ...]
    not_run: str

    def __str__(self) -> str:
        return f"{self.page}: {' '.join(self.words)}"


@dataclass(frozen=True)
class Table:
    """A table outside generated parts: its rows' cells without the head, and the comment above it."""

    page: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    comment: str


def name_of(page: Path) -> str:
    """A page as people name it: its path below the root."""
    return page.relative_to(ROOT).as_posix()


def written(page: Path) -> str:
    """A page's text without its generated parts."""
    return GENERATED.sub("", page.read_text())


def prose(page: Path) -> str:
    """A page's text without generated parts and without fenced blocks."""
    return FENCE.sub("", written(page))


def blocks(page: Path) -> Iterator[Block]:
    """Every fenced block of a page."""
    for comment, language, text in FENCE.findall(written(page)):
        yield Block(name_of(page), language, text, comment)


def commands() -> Iterator[Command]:
    """Every program call in every shell block of every page."""
    for page in PAGES:
        for block in blocks(page):
            if block.language in SHELLS:
                reason = block.comment.removeprefix("not run: ") if block.comment.startswith("not run: ") else ""
                for words in calls(block.text):
                    yield Command(block.page, words, reason)


def calls(text: str) -> Iterator[tuple[str, ...]]:
    """The program calls of a piece of shell, each as its words; variables set in front of one are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        first = line.strip().split(" ")[0]
        if first in STRUCTURE or first.startswith("#") or not first:
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;")
        lexer.whitespace_split = True
        call: list[str] = []
        for word in [*lexer, ";"]:
            if not word.strip("|&;"):
                while call and re.match(r"\w+=", call[0]):
                    del call[0]
                if call and call[0] not in STRUCTURE:
                    yield tuple(call)
                call = []
            else:
                call.append(word)


def tables() -> Iterator[Table]:
    """Every table that is not generated."""
    pattern = re.compile(r"(?:<!-- ([^>]*) -->\n\n)?((?:^\|.*\|\n)+)", flags=re.MULTILINE)
    for page in PAGES:
        for comment, text in pattern.findall(FENCE.sub("", written(page)) + "\n"):
            lines = [tuple(cells(line)) for line in text.strip().splitlines()]
            yield Table(name_of(page), lines[0], tuple(lines[2:]), comment)


def cells(line: str) -> list[str]:
    """The cells of a table's line."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def code_spans(text: str) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
