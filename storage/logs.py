"""Log lines: one for each event, as text or as JSON, with what the work under way belongs to, and no secrets.

`configure` is called once where a process begins. Prefect's processes are configured by
deployments/prefect-logging.yaml, which asks for `prefect_formatter`.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO, cast

import msgspec

from storage.settings import LogSettings, load_settings

CONTEXT: ContextVar[Mapping[str, str]] = ContextVar("log_context")
"""What the work under way belongs to: `request_id`, `job_id`. On every line that is written meanwhile."""

OURS = ("darkroom", "flows", "storage", "platform_api", "deployments")
"""Loggers whose level is the setting's; what libraries say is logged from warnings on."""
_FLOW_RUN = ("flow_run_name", "task_run_name")
_HIDDEN = "***"
_SIGNS = ("drk_", "=", "://", "bearer ", "basic ")
"""One of these is in every text that holds a secret."""
_SECRET = re.compile(
    r"(\bdrk_[A-Za-z0-9]+_"
    r"|[?&][\w-]*(?:token|signature|secret|password|credential|key)="
    # The look-ahead wants an @ behind it: in http://host:8000/ what follows the colon is a port, no password.
    r"|://[^/\s:@]*:(?=[^@\s/]+@)"
    r"|\b(?:Bearer|Basic) )"
    r"[^\s&\"'@,;]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A text in which keys, passwords in URLs, and signatures and tokens in queries are hidden."""
    lowered = text.lower()
    if not any(sign in lowered for sign in _SIGNS):  # most lines: looking closer takes longer than all the rest
        return text
    return _SECRET.sub(lambda found: found[1] + _HIDDEN, text)


@contextmanager
def log_context(**fields: str | None) -> Generator[None]:
    """What is logged meanwhile belongs to this; None is left out."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = CONTEXT.set({**CONTEXT.get({}), **known})
    try:
        yield
    finally:
        CONTEXT.reset(token)


def _event(record: logging.LogRecord, formatter: logging.Formatter) -> dict[str, Any]:
    """What a line says besides its message, in order. `extra={"fields": {...}}` adds to it."""
    fields = cast(Mapping[str, Any], getattr(record, "fields", {}))
    run = {name: value for name in _FLOW_RUN if (value := getattr(record, name, None))}
    event: dict[str, Any] = {**fields, **run, **CONTEXT.get({})}
    if record.exc_info:
        event["exception"] = without_secrets(formatter.formatException(record.exc_info))
    return event


def _moment(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03}Z"


# Lines of one second share its text. Two, because threads may still format lines of the second before.
@lru_cache(2)
def _second(unix: int) -> str:
    return f"{datetime.fromtimestamp(unix, UTC):%Y-%m-%dT%H:%M:%S}"


class JsonLines(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, and what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        head = {"time": _moment(record), "level": record.levelname, "logger": record.name}
        line = {**head, "message": without_secrets(record.getMessage()), **_event(record, self)}
        # enc_hook: a field may hold anything; a line must not be lost because JSON does not know its type.
        return msgspec.json.encode(line, enc_hook=str).decode()


class TextLines(logging.Formatter):
    """One line of text: time, level, logger, message, then `name=value`. Ends of lines inside it become ` | `."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        event = _event(record, self)
        exception = event.pop("exception", "")
        fields = "".join(f" {name}={value}" for name, value in event.items() if value is not None)
        text = f"{_moment(record)} {record.levelname} {record.name}: {without_secrets(record.getMessage())}{fields}"
        if not exception and "\n" not in text and "\r" not in text:
            return text
        # splitlines also knows the separators of Unicode, so text of a caller cannot begin a line that looks like ours.
        return " | ".join(line.strip() for line in f"{text}\n{exception}".splitlines() if line.strip())


def formatter(settings: LogSettings) -> logging.Formatter:
    """The formatter that the settings ask for."""
    return JsonLines() if settings.format == "json" else TextLines()


def prefect_formatter() -> logging.Formatter:
    """The same for Prefect's processes, by their environment. Sets the level of our own loggers, too: a file of logging
    settings can name neither them nor the setting once for all."""
    settings = load_settings().logs
    _set_levels(settings)
    return formatter(settings)


def _set_levels(settings: LogSettings) -> None:
    for name in OURS:
        logging.getLogger(name).setLevel(settings.level)


def configure(settings: LogSettings, stream: TextIO = sys.stderr) -> None:
    """Have everything that this process logs written to `stream`, one line an event."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    _set_levels(settings)
    # uvicorn has set up its own by now. Its line for each request has the query, and with it signatures: ours has not.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"
