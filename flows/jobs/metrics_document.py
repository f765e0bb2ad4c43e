"""The metrics of a job as the blob that it keeps: a line of JSON for each point."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping

import msgspec


class Point(msgspec.Struct, frozen=True):
    """One metric at one step; `at` is Unix milliseconds."""

    name: str
    value: float
    step: int
    at: int


def points_of(step: int, values: Mapping[str, float]) -> list[Point]:
    """What was measured at a step, now. A value that is no finite number is left out: JSON has none, so that it could
    not be read again."""
    now = int(time.time() * 1000)
    return [Point(name, float(value), step, now) for name, value in values.items() if math.isfinite(value)]


def write_document(points: Iterable[Point]) -> bytes:
    """The points, one JSON object a line."""
    return b"".join(msgspec.json.encode(point) + b"\n" for point in points)


def read_document(content: bytes) -> list[Point]:
    """The points of a job's metrics blob."""
    # Earlier releases wrote null for a value that was no number.
    lines = (line for line in content.splitlines() if line and b'"value":null' not in line)
    return [msgspec.json.decode(line, type=Point) for line in lines]
