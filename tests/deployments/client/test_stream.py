"""The event stream, across broken connections."""

from __future__ import annotations

import time

import httpx
import pytest

from deployments.client.api import open_api
from deployments.client.stream import INTERRUPTED, StreamEvent, follow_events, read_events
from storage.settings import load_settings
from tests.deployments.client.cable import cable_to
from tests.deployments.line import Line


def test_a_stream_is_read_as_the_standard_says() -> None:
    lines = [
        "retry: 2000",
        "",
        ": still here",
        "",
        "id: 7",
        "event: job.started",
        'data: {"a":',
        "data: 1}",
        "",
        "data: {",
    ]

    assert list(read_events(a_stream(*lines))) == [StreamEvent(7, "job.started", {"a": 1})]


def test_only_an_event_that_has_an_id_of_its_own_has_one() -> None:
    tick = ("event: progress", 'data: {"step": 1}', "")
    lines = [*tick, "id: 7", "event: job.started", "data: {}", "", *tick, "id: x", "data: {}", ""]

    assert [event.id for event in read_events(a_stream(*lines))] == [None, 7, None, None]


def test_a_response_that_is_no_stream_is_a_broken_connection() -> None:
    with pytest.raises(httpx.TransportError, match="text/event-stream"):
        list(read_events(httpx.Response(200, html="<p>a proxy's page")))


def a_stream(*lines: str) -> httpx.Response:
    """A response of these lines."""
    return httpx.Response(200, headers={"Content-Type": "text/event-stream"}, text="\n".join([*lines, ""]))


def test_every_event_comes_once_and_in_order_though_the_connection_breaks(line: Line, monkeypatch) -> None:
    job_id = line.submitted()
    with cable_to(line.door.url) as cable:
        monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", cable.url)

        def work() -> None:
            job = line.worker.next_job()
            time.sleep(0.5)
            cable.cut()
            line.worker.tick(job, "fit", 1, 2)
            time.sleep(1.5)
            cable.cut()
            line.worker.publish(job)

        worker = line.worker.beside(work)
        with open_api(load_settings()) as api:
            events = list(follow_events(api, f"/api/v1/training-jobs/{job_id}", patience_seconds=30))
        worker.join()

    ids = [event.id for event in events if event.id is not None]
    kinds = [event.kind for event in events if event.id is not None]
    assert line.worker.errors == []
    assert ids == sorted(set(ids))
    assert kinds == ["job.submitted", "job.started", "job.succeeded"]
    assert [event.kind for event in events].count(INTERRUPTED) == 2
    assert cable.connections >= 3


def test_a_job_that_has_ended_is_told_from_its_beginning(line: Line) -> None:
    job_id = line.submitted()
    line("jobs", "cancel", job_id)

    with open_api(load_settings()) as api:
        events = list(follow_events(api, f"/api/v1/training-jobs/{job_id}"))

    assert [event.kind for event in events] == ["job.submitted", "job.cancelled"]
