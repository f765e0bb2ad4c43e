"""The tables of settings in docs/reference/settings.md, made from the settings' own classes."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, SecretStr

from storage.settings import Settings

HEAD = "| variable | default | meaning |\n|---|---|---|"


def rows(group: type[BaseModel] = Settings, prefix: str = "DARKROOM_") -> Iterator[tuple[str, str, str]]:
    """Variable, default and meaning of every setting, in the order of the class."""
    for name, field in group.model_fields.items():
        if nested := _group(field.annotation):
            yield from rows(nested, f"{prefix}{name.upper()}__")
            continue
        default = field.get_default(call_default_factory=True)
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        text = f"`{shown}`" if shown not in ("", {}, []) else ""
        yield prefix + name.upper(), text, field.description or ""


def sections() -> str:
    """A heading, what the group is for, and its table, for every group of settings, in Markdown."""
    alone = [row for row in rows() if "__" not in row[0]]
    parts = [f"## General\n\n{_table(alone)}"]
    for name, field in Settings.model_fields.items():
        if group := _group(field.annotation):
            purpose = " ".join((group.__doc__ or "").split("\n\n")[0].split())
            parts.append(f"## {name.capitalize()}\n\n{purpose}\n\n{_table(rows(group, f'DARKROOM_{name.upper()}__'))}")
    return "\n\n".join(parts)


def _group(annotation: object) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _table(listed: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> str:
    return "\n".join([HEAD, *(f"| `{variable}` | {default} | {meaning} |" for variable, default, meaning in listed)])
