"""The settings line of a picture's `parameters` text, `Steps: 25, Sampler: DPM++ 2M, Seed: 1, ...`: written and read.

A value with a comma, a colon or a line feed is quoted as JSON. Civitai adds values that are JSON without quotes, and
finds the end of one by its first bracket; so brackets within its texts are written as JSON escapes.

Sources: AUTOMATIC1111/stable-diffusion-webui, modules/infotext_utils.py (`quote`, `unquote`, `re_param`);
civitai/civitai, src/utils/metadata/automatic.metadata.ts.
"""

from __future__ import annotations

import json
import re
from typing import Any, cast

MAX_SETTINGS = 1_000
MAX_FAILED_VALUES = 20
"""Values that look like JSON and are none, after which no other is tried: each may cost a pass over the whole text."""
KNOWN_KEYS = (
    "Steps",
    "Sampler",
    "Schedule type",
    "Scheduler",
    "CFG scale",
    "Seed",
    "Size",
    "Model hash",
    "Model",
    "Denoising strength",
    "Clip skip",
    "Version",
)
"""Keys by which a settings line is recognized: all tools that write one write several of these."""

_SEPARATORS = re.compile(r"[\s,]*")
# Every repetition that something must follow is bounded: a text of nothing but blanks must not cost its square.
_KEY = re.compile(r'(\w[^,:"\[\]{}]{0,99}?)\s{0,9}:\s*')
_KNOWN = "|".join(re.escape(key) for key in KNOWN_KEYS)
_STARTS = re.compile(rf"\s*(?:{_KNOWN})\s?:")
_KNOWN_PAIR = re.compile(rf"(?:^|,\s?)\s?(?:{_KNOWN})\s?:")
_JSON_TEXT = re.compile(r'"(?:\\.|[^"\\])*"')
_STRUCTURE = re.compile(r"[\[\]{},:]")
_BRACKETS = re.compile(r"[\[\]{}]")
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _name: None)


def setting(key: str, value: object) -> str:
    """`key: value`, the value quoted where it needs it. Numbers are written as short as they can be read back."""
    text = repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return f"{key}: {quoted(text)}"


def quoted(text: str) -> str:
    """A value as it stands, or as a JSON text where A1111 quotes it, or where a reader would take off part of it."""
    plain = not re.search(r"[,:\n]", text) and text == text.strip() and text[:1] not in tuple('"[{')
    return text if plain and text else json.dumps(text, ensure_ascii=False)


def embedded(value: object) -> str:
    """JSON that stands unquoted in a settings line: nothing within its texts looks like the line's own structure."""

    def escaped(match: re.Match[str]) -> str:
        # An AIR stays readable; other colons could pass for a key in A1111, such as those of a model named "Seed: 1".
        structure = _BRACKETS if match[0].startswith('"urn:air:') else _STRUCTURE
        return structure.sub(lambda found: f"\\u{ord(found[0]):04x}", match[0])

    return _JSON_TEXT.sub(escaped, json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def is_settings_line(line: str) -> bool:
    """Whether a line begins with a known key and has three or more of them."""
    return _STARTS.match(line) is not None and len(_KNOWN_PAIR.findall(line)) >= 3


def read_settings(text: str) -> dict[str, Any]:
    """The settings of a line, by key: texts, or lists and mappings where a value is JSON. The last of a key counts.

    What has no key belongs to the value before it: other tools write values with commas unquoted. Never raises.
    """
    found: dict[str, Any] = {}
    # Where the last value that was no JSON began and has ended so far, and its key: it may have commas.
    plain: tuple[str, int, int] | None = None
    position, failures = _next_part(text, 0), 0
    while position < len(text) and len(found) + (plain is not None) < MAX_SETTINGS:
        match = _KEY.match(text, position)
        if match is None:
            end = _end_of_part(text, position)
            plain = (plain[0], plain[1], end) if plain else None
        else:
            _keep(found, text, plain)
            key, start, end, plain = match[1], match.end(), 0, None
            if text[start : start + 1] in ('"', "[", "{") and failures < MAX_FAILED_VALUES:
                found[key], end = _json_value(text, start)
                failures += not end
            if not end:
                end = _end_of_part(text, start)
                plain = (key, start, end)
        position = _next_part(text, end)
    _keep(found, text, plain)
    return found


def _keep(found: dict[str, Any], text: str, plain: tuple[str, int, int] | None) -> None:
    if plain is not None:
        found[plain[0]] = text[plain[1] : plain[2]].strip()


def _next_part(text: str, position: int) -> int:
    return cast(re.Match[str], _SEPARATORS.match(text, position)).end()


def _end_of_part(text: str, start: int) -> int:
    end = text.find(",", start)
    return len(text) if end < 0 else end


def _json_value(text: str, start: int) -> tuple[Any, int]:
    """A JSON value and where the comma behind it stands; position 0 where there is no such value."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    # ValueError also for a number of thousands of digits; RecursionError for what is nested without end.
    except (ValueError, RecursionError):
        return None, 0
    while end < len(text) and text[end].isspace():
        end += 1
    return (value, end) if end == len(text) or text[end] == "," else (None, 0)
