"""A log line is one line, says what it belongs to, and holds no secret."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

from deployments.local.environment import PREFECT_LOGGING
from storage.logs import formatter, log_context, without_secrets
from storage.settings import LogSettings

PROJECT = Path(__file__).parents[2]


def written(kind: Literal["text", "json"]) -> list[str]:
    """What a logger of this format writes of two events."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(LogSettings(format=kind)))
    log = logging.Logger("darkroom.test")
    log.addHandler(handler)
    with log_context(request_id="abc-1", job_id=None):
        log.info("two\nlines of %s", "drk_ab12_c0ffee", extra={"fields": {"ms": 1.5}})
        try:
            raise ValueError("no\nway")
        except ValueError:
            log.exception("it failed")
    log.info("over")
    return stream.getvalue().splitlines()


def test_an_event_is_one_json_object_with_what_it_belongs_to() -> None:
    first, failed, last = (json.loads(line) for line in written("json"))
    assert first.pop("time").endswith("Z")
    assert first == {
        "level": "INFO",
        "logger": "darkroom.test",
        "message": "two\nlines of drk_ab12_***",
        "ms": 1.5,
        "request_id": "abc-1",
    }
    assert (failed["level"], failed["request_id"]) == ("ERROR", "abc-1")
    assert failed["exception"].endswith("ValueError: no\nway")
    assert "request_id" not in last


def test_an_event_is_one_line_of_text() -> None:
    first, failed, last = written("text")
    assert first.endswith("INFO darkroom.test: two | lines of drk_ab12_*** ms=1.5 request_id=abc-1")
    assert "it failed request_id=abc-1 | Traceback (most recent call last): | File" in failed
    assert failed.endswith("ValueError: no | way")
    assert last.endswith("darkroom.test: over")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Bearer drk_ab12_c0ffee!", "Bearer ***"),
        ("key drk_ab12_c0ffee.", "key drk_ab12_***"),
        ("GET /x?a=1&signature=abc&b=2", "GET /x?a=1&signature=***&b=2"),
        ("https://s3/x?X-Amz-Signature=abc", "https://s3/x?X-Amz-Signature=***"),
        ("/unsubscribe?token=eyJ.abc", "/unsubscribe?token=***"),
        ("redis://:secret@host/0", "redis://:***@host/0"),
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("http://host:8000/docs", "http://host:8000/docs"),
    ],
)
def test_secrets_are_hidden_wherever_they_stand(said: str, shown: str) -> None:
    assert without_secrets(said) == shown


@pytest.mark.parametrize(("level", "ours"), [("DEBUG", ["from us", "a detail"]), ("INFO", ["from us"]), ("ERROR", [])])
def test_prefects_processes_write_the_same_lines(level: str, ours: list[str]) -> None:
    code = (
        "import logging; from prefect import flow; from prefect.logging import get_logger\n"
        "from storage.logs import log_context\n"
        "with log_context(request_id='abc-1'):\n"
        "    get_logger('workers').info('from prefect'); logging.getLogger('darkroom.lifecycle').info('from us')\n"
        "    logging.getLogger('storage.blobs').debug('a detail')\n"
    )
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(PROJECT),
        "DARKROOM_LOGS__FORMAT": "json",
        "DARKROOM_LOGS__LEVEL": level,
        "PREFECT_LOGGING_SETTINGS_PATH": str(PREFECT_LOGGING),
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["from prefect", *ours]
    assert {line["request_id"] for line in lines} == {"abc-1"}
