"""What Darkroom logs meanwhile, as JSON lines."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from storage.logs import formatter
from storage.settings import LogSettings


@pytest.fixture
def json_log() -> Iterator[io.StringIO]:
    """Everything from DEBUG on that a logger of ours says during a test."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(LogSettings(format="json")))
    ours = logging.getLogger("darkroom")
    level = ours.level
    ours.setLevel("DEBUG")
    ours.addHandler(handler)
    yield stream
    ours.removeHandler(handler)
    ours.setLevel(level)
