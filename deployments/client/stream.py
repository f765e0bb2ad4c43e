"""A job's event stream, followed to its end across broken connections.

httpx-sse reads the stream; it does not connect again, which is done here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec
from httpx_sse import EventSource

from deployments.client.api import (
    FIRST_PAUSE_SECONDS,
    MAX_PAUSE_SECONDS,
    Api,
    ApiRefusal,
    raise_for_problem,
)
from storage.backoff import pause_after

# The API sends something every 10 s (platform_api/streams/job_events.py): three times that is a dead connection.
SILENCE_SECONDS = 30.0
PATIENCE_SECONDS = 600.0
INTERRUPTED = "interrupted"
NO_CONTENT = 204
"""The response for a job that has ended, to who has read all of it."""
LAST_KINDS = frozenset({"job.succeeded", "job.failed", "job.cancelled"})


@dataclass(frozen=True)
class StreamEvent:
    """One event: a state change with its id, or a `progress` tick without one. The kind INTERRUPTED is our own."""

    id: int | None
    kind: str
    data: dict[str, Any]


def read_events(response: httpx.Response) -> Iterator[StreamEvent]:
    """The events of a text/event-stream. Those without data are passed over. Raises httpx.TransportError.

    The standard lets an event without an id keep the one before it; here it has none, since it is not that event.
    """
    last = ""
    for event in EventSource(response).iter_sse():
        identity = int(event.id) if event.id != last and event.id.isdigit() else None
        last = event.id
        if event.data:
            yield StreamEvent(identity, event.event, msgspec.json.decode(event.data, type=dict[str, Any]))


def follow_events(api: Api, path: str, *, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[StreamEvent]:
    """The events of the job at `path` until it ends.

    A broken connection is made again and goes on after the last event seen; each break is one event of the kind
    INTERRUPTED. Raises ApiRefusal, and ApiUnreachable after `patience_seconds` without a response.
    """
    last = failures = 0
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            for event in _one_connection(api, path, last):
                last = event.id or last
                failures, deadline = 0, time.monotonic() + patience_seconds
                yield event
                if event.kind in LAST_KINDS:
                    return
            if _has_ended(api, path):
                return
        except (httpx.TransportError, ApiRefusal) as error:
            # A 4xx stays what it is; 5xx and broken connections pass.
            if isinstance(error, ApiRefusal) and error.status < 500:
                raise
            if time.monotonic() > deadline:
                raise api.unreachable(error) from error
        yield StreamEvent(None, INTERRUPTED, {})
        failures += 1  # counted here and not by stamina: the count begins again with each event
        time.sleep(pause_after(failures, FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS))


def _one_connection(api: Api, path: str, last: int) -> Iterator[StreamEvent]:
    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": str(last)} if last else {})
    timeout = httpx.Timeout(SILENCE_SECONDS, connect=5.0)
    with api.http.stream("GET", f"{path}/events", headers=headers, timeout=timeout) as response:
        if not response.is_success:
            response.read()
        raise_for_problem(response)
        if response.status_code != NO_CONTENT:
            yield from read_events(response)


def _has_ended(api: Api, path: str) -> bool:
    """Whether a stream that closed did so because the job's end was reported before."""
    response = api.http.get(path)
    raise_for_problem(response)
    state: object = msgspec.json.decode(response.content, type=dict[str, Any]).get("state")
    return state in {kind.removeprefix("job.") for kind in LAST_KINDS}
