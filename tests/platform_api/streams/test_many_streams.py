"""3,000 open streams: each small, none in the way of anything else."""

from __future__ import annotations

import contextlib
import logging
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from storage.settings import ApiSettings
from tests.platform_api.door import Door, form, photo, register_starter, serving
from tests.platform_api.process import Process

LOG = logging.getLogger(__name__)
STREAMS = 3000
KIB_EACH = 90
"""Three times what a stream was seen to take with its connection."""


@pytest.fixture
def door(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    with serving(tmp_path, database_url, valkey_url, api=ApiSettings(max_streams_per_account=STREAMS)) as door:
        register_starter(door.database)
        yield door


def opened(process: Process, path: str, key: str) -> socket.socket:
    """A stream that has begun."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=60)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n\r\n".encode())
    assert connection.recv(15) == b"HTTP/1.1 200 OK"
    return connection


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_beside_three_thousand_streams_images_are_taken_and_news_arrive(door: Door) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2 * STREAMS:
        pytest.skip(f"this machine allows {hard} open files only")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2 * STREAMS, hard))
    variables = {"DARKROOM_API__MAX_STREAMS_PER_ACCOUNT": str(STREAMS), "DARKROOM_LIMITS__READS": "0"}
    # The server begins with the few files that a login shell usually allows, and helps itself to more.
    with Process(door.settings, variables=variables) as process, contextlib.ExitStack() as streams:
        client = httpx.Client(base_url=process.url, headers={"Authorization": f"Bearer {door.key}"}, timeout=60)
        server = psutil.Process(process.pid)
        before, began = server.memory_info().rss, time.monotonic()
        for _ in range(STREAMS):
            streams.enter_context(opened(process, "/api/v1/notifications/events", door.key))
        seconds, each = time.monotonic() - began, (server.memory_info().rss - before) / STREAMS / 1024
        busy = server.cpu_percent(interval=5)
        LOG.warning("%d streams opened in %.1f s, %.0f KiB each, %.0f %% of a core", STREAMS, seconds, each, busy)
        assert server.num_fds() > STREAMS
        assert each < KIB_EACH
        began = time.monotonic()
        sent = client.post("/api/v1/data-sets", files=form(("a.png", photo(1)), ("b.png", photo(2))))
        assert sent.status_code == 201, sent.text
        LOG.warning("two photos taken in %.1f s", time.monotonic() - began)
        process.ask_to_stop()
        assert process.process is not None
        process.process.wait(timeout=20)
        LOG.warning("stopped %.1f s after that began", time.monotonic() - began)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
