"""The site is built, strictly: a page that is in no list, a link or an anchor that leads nowhere stops the build."""

from __future__ import annotations

import re
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder of the built site, and what the build said."""
    folder = tmp_path_factory.mktemp("site")
    return folder, build(DOCS, folder)


def test_the_site_is_built_without_a_warning(site: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = site

    assert (done.returncode, done.stderr) == (0, "")
    pages = {page.relative_to(DOCS).with_suffix(".html") for page in DOCS.rglob("*.md")}
    assert [page for page in pages if not (folder / page).is_file()] == []


def test_the_site_fetches_nothing_from_elsewhere(site: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = site
    fetched = re.compile(r"""<(?:script|img|iframe)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"|url\(([^)]+)\)""")
    for file in (*folder.rglob("*.html"), *folder.rglob("*.css")):
        found = ["".join(groups).strip("\"'") for groups in fetched.findall(file.read_text())]
        assert [address for address in found if address.startswith(("http:", "https:", "//"))] == [], file


def test_links_that_lead_nowhere_stop_the_build(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    shutil.copy(DOCS / "conf.py", docs)
    shutil.copytree(DOCS / "_static", docs / "_static")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (docs / "other.md").write_text("# Other\n\n## A heading\n")
    broken = ["no-such-page.md", "other.md#no-such-heading", "#no-such-anchor"]
    links = "\n\n".join(f"[x]({link})" for link in ["other.md#a-heading", *broken])
    (docs / "index.md").write_text(f"# Page\n\n{links}\n\n```{{toctree}}\nother\n```\n")

    done = build(docs, tmp_path / "site")

    assert done.returncode != 0
    assert done.stderr.count("index.md") == len(broken), done.stderr
    assert [link for link in broken if link.split("#")[-1].removesuffix(".md") not in done.stderr] == []
