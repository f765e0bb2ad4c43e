"""The metrics of a job as the files that it keeps: a line of JSON for each point.

A running job writes a part with each checkpoint, of the points since the part before, so that what it writes grows with
its steps and not with their square. When it succeeds, one file takes their place. Jobs of earlier releases have that
file alone.
"""

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


def merged(parts: Iterable[bytes]) -> list[Point]:
    """The points of a job's metrics files, oldest file first, in the order of their steps.

    A step that an attempt repeated stands in two parts: the later one holds.
    """
    found = {(point.name, point.step): point for content in parts for point in read_document(content)}
    return sorted(found.values(), key=lambda point: point.step)
