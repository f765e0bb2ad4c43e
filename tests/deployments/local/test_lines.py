"""What `up` shows is one line a line, and JSON where the settings say so."""

from __future__ import annotations

import json

from deployments.local.lines import shown_by
from storage.settings import LogSettings


def test_as_json_every_line_is_an_object_that_names_its_part() -> None:
    shown = shown_by(LogSettings(format="json"))
    ours = json.loads(shown("api", '{"time": "t", "message": "GET / 200", "request_id": "x"}'))
    assert ours == {"part": "api", "time": "t", "message": "GET / 200", "request_id": "x"}
    theirs = [json.loads(shown("postgres", line)) for line in ("ready", "7", "[1]", '{"cut')]
    assert [(line["part"], line["message"]) for line in theirs] == [
        ("postgres", line) for line in ("ready", "7", "[1]", '{"cut')
    ]


def test_as_text_a_line_stays_what_it_is() -> None:
    assert shown_by(LogSettings())("api", "ready") == "\x1b[36m            api |\x1b[0m ready"
