"""The options of `darkroom generate` as fields of a request, each with the option that it came from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deployments.client.generation_input import InvalidGeneration

OPTIONS = {
    "prompt": "PROMPT",
    "adapters": "--adapter",
    "negativePrompt": "--negative",
    "width": "--size",
    "height": "--size",
    "guidanceScale": "--guidance",
    "guidanceRescale": "--guidance-rescale",
    "clipSkip": "--clip-skip",
    "tags": "--tag",
}
"""Of fields whose option has another name than `--FIELD`."""
NO_ADAPTERS = "none"
_SIZE = re.compile(r"(\d{1,6})\s*[xX×]\s*(\d{1,6})")
_ADAPTER = re.compile(r"(?P<version>\d+|urn:air:.+@\d+(?:\.\w+)?)(?::(?P<strength>[+-]?\d*\.?\d+))?", re.IGNORECASE)
_JPEG = (".jpg", ".jpeg")


def given_fields(**values: Any) -> dict[str, tuple[Any, str]]:
    """Values by field, each with its option. None: was not given."""
    fields = {name: getattr(value, "value", value) for name, value in values.items()}
    fields["model"] = _number_or_air(fields.get("model"))
    for name in ("image", "mask"):
        # As typed in this folder, wherever the file of a workflow lies.
        if fields.get(name) is not None:
            fields[name] = str(Path(fields[name]).absolute())
    if fields.get("operation") is None and (fields.get("image") or fields.get("mask")):
        fields["operation"] = "inpaint" if fields.get("mask") else "img2img"
    return {name: (value, OPTIONS.get(name, f"--{name}")) for name, value in fields.items()}


def one_prompt(words: Sequence[str]) -> str | None:
    """The prompt. Raises InvalidGeneration for several, with the form that was meant."""
    if len(words) < 2:
        return words[0] if words else None
    if words[0].isdigit():
        rest = words[1] if " " not in words[1] and len(words) == 2 else f'"{" ".join(words[1:])}"'
        raise InvalidGeneration(
            [("PROMPT", f"a model version is an option now: darkroom generate {rest} --model {words[0]}")]
        )
    shown = " ".join(words)
    raise InvalidGeneration([("PROMPT", f'there are {len(words)} of them; put one into quotes: "{shown[:200]}"')])


def size_of(text: str | None) -> tuple[int | None, int | None]:
    """Width and height in pixels. Raises InvalidGeneration."""
    if text is None:
        return None, None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidGeneration(
            [("--size", f"'{text[:40]}' is no size; write WIDTHxHEIGHT in pixels, such as 768x512")]
        )
    return int(found[1]), int(found[2])


def adapters_of(texts: Sequence[str]) -> list[dict[str, Any]] | None:
    """Adapters with their strengths; None where none was given. Raises InvalidGeneration."""
    if not texts:
        return None
    if list(texts) == [NO_ADAPTERS]:
        return []
    found: list[dict[str, Any]] = []
    for text in texts:
        parts = _ADAPTER.fullmatch(text.strip())
        if parts is None:
            reason = "is no adapter; write VERSION or VERSION:STRENGTH, such as 7:0.8"
            raise InvalidGeneration([("--adapter", f"'{text[:100]}' {reason}")])
        adapter: dict[str, Any] = {"model": _number_or_air(parts["version"])}
        found.append(adapter if parts["strength"] is None else adapter | {"strength": float(parts["strength"])})
    return found


def preview_file(file: Path | None) -> None:
    """Raises InvalidGeneration for a file that a JPEG cannot be written to."""
    if file is None:
        return
    if file.suffix.lower() not in _JPEG:
        raise InvalidGeneration([("--preview", f"{file}: previews are JPEGs; name a file that ends in .jpg")])
    if not file.parent.is_dir():
        raise InvalidGeneration([("--preview", f"there is no folder {file.parent}")])


def _number_or_air(text: str | None) -> int | str | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 17 else text
