"""A process that is asked to stop loses nothing: streams say so, requests finish, uploads go on at the next one."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.platform_api.door import Door, register_starter, serving
from tests.platform_api.process import Process
from tests.platform_api.sending import BYTES, Sender, a_sender, weights
from tests.platform_api.streams.test_job_events import read, submitted

pytestmark = pytest.mark.timeout(180)
CONTENT = weights(7, 1_500_000)
SENT = 2_000_000


@pytest.fixture
def door(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    with serving(tmp_path, database_url, valkey_url) as door:
        register_starter(door.database)
        yield door


def messages_of(client: httpx.Client, path: str) -> list[dict[str, str]]:
    """What a stream says until it ends."""
    with client.stream("GET", path, timeout=60) as response:
        assert response.status_code == 200
        return list(read(response))


def half_an_upload(process: Process, path: str, key: str) -> socket.socket:
    """A connection on which the first SENT bytes of CONTENT have been sent, and no more come."""
    connection = socket.create_connection(("127.0.0.1", process.port), timeout=30)
    headers = {**BYTES, "Upload-Offset": "0", "Content-Length": str(len(CONTENT)), "Authorization": f"Bearer {key}"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"PATCH {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + CONTENT[:SENT])
    return connection


def test_sigterm_ends_streams_by_name_finishes_requests_and_keeps_uploads(door: Door) -> None:
    sender: Sender = a_sender(door)
    job: Any = submitted(door.client())
    with Process(door.settings) as process, door.database.connect() as other, ThreadPoolExecutor(3) as pool:
        client = door.client()
        client.base_url = process.url
        upload = sender.begin(len(CONTENT)).removeprefix(door.url)
        sending = half_an_upload(process, upload, door.key)
        job_path = httpx.URL(job["links"]["events"]).path
        streams = [pool.submit(messages_of, client, path) for path in (job_path, "/api/v1/notifications/events")]
        with other.transaction():
            other.execute("lock table data_sets in access exclusive mode")
            slow = pool.submit(client.get, "/api/v1/data-sets", timeout=60)
            time.sleep(1.5)
            asked = time.monotonic()
            process.ask_to_stop()
            time.sleep(1)
        assert slow.result().status_code == 200
        for stream in streams:
            last = stream.result(timeout=10)[-1]
            assert (last["event"], json.loads(last["data"])) == ("closing", {"reason": "shutting_down"})
        response = "".join(iter(lambda: sending.recv(65536).decode(), ""))
        assert response.startswith("HTTP/1.1 503")
        assert "shutting_down" in response
        assert "retry-after: 5" in response.lower()
        sending.close()
        assert process.process is not None
        process.process.wait(timeout=15)
        assert time.monotonic() - asked < 14
    assert sender.offset(upload) == SENT
    assert sender.send(upload, SENT, CONTENT[SENT:]).status_code == 204
