"""What is slow at one door holds up no other."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from platform_api.upkeep import health_checks
from storage.postgres import connection
from tests.platform_api.door import ALL, Door, form, photo, serving
from tests.platform_api.http import test_downloads
from tests.platform_api.http.test_downloads import CONTENT, publish
from tests.platform_api.http.test_problems import assert_problem

pytestmark = pytest.mark.timeout(120)


def figure(client: httpx.Client, name: str) -> float:
    """One figure of /metrics, by its whole name."""
    return next(float(line.split()[-1]) for line in client.get("/metrics").text.splitlines() if line.startswith(name))


@contextlib.contextmanager
def standing_still(children: list[psutil.Process]) -> Iterator[None]:
    """Processes that do nothing meanwhile."""
    for child in children:
        os.kill(child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for child in children:
            os.kill(child.pid, signal.SIGCONT)


def image_children() -> list[psutil.Process]:
    """The children that make images canonical."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "storage.blobs.images" in " ".join(child.cmdline())]


def sent(client: httpx.Client, seed: int) -> int:
    """The status of a new data set of two photos."""
    files = form(("a.png", photo(seed)), ("b.png", photo(seed + 1000)))
    return client.post("/api/v1/data-sets", files=files).status_code


def test_slow_images_stall_no_download(door: Door) -> None:
    client = door.client()
    path = publish(door, client).path
    assert sent(client, 1) == 201
    senders = [door.client(door.new_key(*ALL, account=f"sender-{number}")) for number in range(4)]
    with ThreadPoolExecutor(12) as pool:
        with standing_still(image_children()):
            sending = [pool.submit(sent, sender, 2 + number) for number in range(3) for sender in senders]
            time.sleep(1.5)  # the photos are here, and wait for the two children
            assert client.get(path, timeout=10).content == CONTENT
            assert figure(client, 'darkroom_pool_waiting{pool="images"}') >= 10
        assert [response.result() for response in sending] == [201] * 12


def test_clients_that_stop_reading_hold_no_thread(shared_door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    content = os.urandom(24 * 1024 * 1024)
    monkeypatch.setattr(test_downloads, "CONTENT", content)
    client = shared_door.client()
    path = publish(shared_door, client).path
    url = httpx.URL(shared_door.url)
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {shared_door.key}\r\n\r\n".encode()
    with contextlib.ExitStack() as idle:
        for _ in range(shared_door.settings.api.blob_threads + 2):
            connection = idle.enter_context(socket.create_connection((url.host, url.port or 80), timeout=10))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(request)
            assert connection.recv(15) == b"HTTP/1.1 200 OK"
        assert client.get(path, timeout=20).content == content
        assert figure(client, 'darkroom_pool_busy{pool="blob-reads"}') == 0


def test_a_process_whose_connections_are_all_in_use_is_ready(
    database_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_checks, "PATIENCE_SECONDS", 0.5)
    with serving(tmp_path, database_url, valkey_url) as door, door.database.connect() as other:
        clients = [door.client() for _ in range(door.settings.postgres.pool_size)]
        with ThreadPoolExecutor(len(clients)) as pool:
            with other.transaction():
                other.execute("lock table data_sets in access exclusive mode")
                asked = [pool.submit(client.get, "/api/v1/data-sets") for client in clients]
                deadline = time.monotonic() + 20
                # Until all of them have their connection.
                while (ready := httpx.get(f"{door.url}/health/ready")).json() == {"status": "ok"}:
                    assert time.monotonic() < deadline
                health = httpx.get(f"{door.url}/health")
            assert {one.result().status_code for one in asked} == {200}
        assert (ready.status_code, ready.json()) == (200, {"status": "degraded"})
        assert (health.status_code, health.json()["parts"]["postgres"]) == (200, "busy")


def test_requests_that_find_no_connection_are_refused_in_time_by_name_and_counted(
    database_url: str, valkey_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ROOM_SECONDS", 0.2)
    with serving(tmp_path, database_url, valkey_url) as door, door.database.connect() as other:
        clients = [door.client() for _ in range(door.settings.postgres.pool_size + 4)]
        with ThreadPoolExecutor(len(clients)) as pool:
            with other.transaction():
                other.execute("lock table data_sets in access exclusive mode")
                asked = [pool.submit(client.get, "/api/v1/data-sets") for client in clients]
                time.sleep(1)
            responses = [one.result() for one in asked]
        refused = [response for response in responses if response.status_code != 200]
        assert 4 <= len(refused) < len(responses)
        for response in refused:
            assert assert_problem(response, 503)["code"] == "pool_busy"
            assert response.headers["retry-after"] == "5"
        assert figure(clients[0], 'darkroom_pool_refusals_total{pool="postgres"}') == len(refused)
