"""The site is built, strictly: a page that is in no list, a link or an anchor that leads nowhere stops the build."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

DOCS = ROOT / "docs"


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs, with these words of the Makefile."""
    [line] = [line for line in (ROOT / "Makefile").read_text().splitlines() if "sphinx-build" in line]
    words = line.split("sphinx-build")[1].split()
    command = [sys.executable, "-m", "sphinx", *words[:-2], str(source), str(target)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = build(DOCS, tmp_path / "site")

    assert (done.returncode, done.stderr) == (0, "")
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert [page for page in pages if not (tmp_path / "site" / page).is_file()] == []


def test_the_site_fetches_nothing_from_elsewhere(tmp_path: Path) -> None:
    assert build(DOCS, tmp_path / "site").returncode == 0
    index = (tmp_path / "site" / "index.html").read_text()
    assert [part for part in index.split('"') if part.startswith(("http://", "https://", "//")) and ".js" in part] == []
    assert 'rel="stylesheet" href="http' not in index


@pytest.mark.parametrize("link", ["[x](no-such-page.md)", "[x](other.md#no-such-heading)", "[x](#no-such-heading)"])
def test_a_link_that_leads_nowhere_stops_the_build(link: str, tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(DOCS / "conf.py", docs)
    shutil.copytree(DOCS / "_static", docs / "_static")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (docs / "other.md").write_text("# Other\n\n## A heading\n")
    (docs / "index.md").write_text(f"# Page\n\n[y](other.md#a-heading)\n\n{link}\n\n```{{toctree}}\nother\n```\n")

    done = build(docs, tmp_path / "site")

    assert done.returncode != 0
    assert "index.md" in done.stderr
