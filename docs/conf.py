"""How `make docs` builds the site: Markdown through MyST, strict, with every script and font served from the site."""

from __future__ import annotations

import re
from pathlib import Path

PYPROJECT = (Path(__file__).parents[1] / "pyproject.toml").read_text()

project = "Darkroom"
copyright = "Darkroom's authors, Apache-2.0"
version = release = re.findall(r'^version = "(.+)"$', PYPROJECT, flags=re.MULTILINE)[0]
language = "en"

extensions = ["myst_parser"]
# GitHub makes an anchor of every heading; so does the site, and a link to one that is missing stops the build.
myst_heading_anchors = 4
myst_enable_extensions = []
# `{...}` in a code block is not a directive, and GitHub shows no directives: pages use plain Markdown only.
myst_fence_as_directive = []
exclude_patterns = []
nitpicky = True

html_theme = "furo"
html_title = "Darkroom"
html_show_sphinx = False
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]
# Pages name addresses of a platform on this machine; nothing here is fetched from elsewhere.
html_theme_options = {"navigation_with_keys": True}
