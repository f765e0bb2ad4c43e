"""The table of settings that README shows: `python -m deployments.settings_table --write` puts it there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, SecretStr

from storage.settings import Settings

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- settings: begin -->", "<!-- settings: end -->"


def rows(group: type[BaseModel] = Settings, prefix: str = "DARKROOM_") -> Iterator[tuple[str, str, str]]:
    """Variable, default and meaning of every setting, in the order of the class."""
    for name, field in group.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from rows(kind, f"{prefix}{name.upper()}__")
            continue
        default = field.get_default(call_default_factory=True)
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        text = f"`{shown}`" if shown not in ("", {}, []) else ""
        yield prefix + name.upper(), text, field.description or ""


def table() -> str:
    """The table in Markdown."""
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    lines += [f"| `{variable}` | {default} | {meaning} |" for variable, default, meaning in rows()]
    return "\n".join(lines)


def shown_in(readme: str) -> str:
    """The table that a README's text holds between its marks."""
    return readme.split(BEGIN, 1)[1].split(END, 1)[0].strip()


def main() -> None:
    """Print the table, or write it into README with --write."""
    if sys.argv[1:] == ["--write"]:
        text = README.read_text()
        README.write_text(text.replace(shown_in(text), table()))
    else:
        print(table())


if __name__ == "__main__":
    main()
