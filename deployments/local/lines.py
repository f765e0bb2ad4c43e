"""What `darkroom up` shows of the parts' logs: coloured lines for a person, or one JSON object a line."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import msgspec
import typer

from storage.settings import LogSettings

COLOURS = ("cyan", "green", "yellow", "blue", "magenta", "bright_cyan", "bright_green", "bright_yellow", "bright_blue")


def shown_by(settings: LogSettings) -> Callable[[str, str], str]:
    """What makes a part's name and a line of its log one line of ours."""
    if settings.format == "json":
        return as_json
    colours: dict[str, str] = {}

    def as_text(part: str, line: str) -> str:
        colour = colours.setdefault(part, COLOURS[len(colours) % len(COLOURS)])
        return f"{typer.style(f'{part:>15} |', fg=colour)} {line}"

    return as_text


def as_json(part: str, line: str) -> str:
    """A JSON object with the part's name. A line that is one already (our own parts') keeps its fields; what the others
    say (Postgres, Valkey, MLflow) becomes the message."""
    try:
        decoded = cast(object, msgspec.json.decode(line))
    except msgspec.DecodeError:
        decoded = None
    if isinstance(decoded, dict):
        fields = cast(dict[str, Any], decoded)
    else:
        fields = {"time": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z", "message": line}
    return msgspec.json.encode({"part": part, **fields}).decode()
