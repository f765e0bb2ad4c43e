"""Writes the generated parts of the pages in docs/: `python -m deployments.reference_pages`, which `make docs` runs.

A part stands between `<!-- generated: NAME -->` and `<!-- generated: end -->`. Tests fail while one is out of date.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from deployments import reference_tables, scheduler_tables, settings_table, training_tables
from flows.upkeep.retention.retention_rules import document

DOCS = Path(__file__).resolve().parents[1] / "docs"
PART = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(\n<!-- generated: end -->)", flags=re.DOTALL)
PARTS: Mapping[str, Callable[[], str]] = {
    "settings": settings_table.sections,
    "commands": reference_tables.commands,
    "routes": reference_tables.routes,
    "errors": reference_tables.errors,
    "flows": reference_tables.flows,
    "job-states": reference_tables.job_states,
    "choices": reference_tables.choices,
    "training-fields": training_tables.fields,
    "training-presets": training_tables.presets,
    "schedulers": scheduler_tables.schedulers,
    "scheduler-spacings": scheduler_tables.spacings,
    "scheduler-names": scheduler_tables.names,
    "schedulers-left-out": scheduler_tables.left_out,
    "contracts": reference_tables.contracts,
    "areas": reference_tables.areas,
    "retention": lambda: "\n".join(document()),
}
"""What makes each part."""


def pages() -> Iterator[Path]:
    """The pages that have generated parts."""
    return (page for page in sorted(DOCS.rglob("*.md")) if PART.search(page.read_text()))


def updated(text: str) -> str:
    """A page's text with its generated parts as they must be. Raises KeyError for a part that nothing makes."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]]()}\n{part[4]}", text)


def main() -> None:
    """Write every page that is out of date, and name it."""
    for page in pages():
        old = page.read_text()
        if (new := updated(old)) != old:
            page.write_text(new)
            print(f"written: {page.relative_to(DOCS.parent)}")


if __name__ == "__main__":
    main()
