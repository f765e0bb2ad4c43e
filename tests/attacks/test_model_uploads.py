"""Hostile model files through the real endpoints: the reason that is recorded for each, and nothing left behind."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from platform_api.app import UPLOADS_PER_ACCOUNT
from platform_api.catalog.uploads import incoming_files
from platform_api.http import request_body
from storage.records.catalog.vocabulary import ModelType
from tests.attacks.corpus import ACCEPT, REJECT, RUNS_CODE, SOUND
from tests.platform_api.door import Door, serving
from tests.platform_api.sending import BYTES, TUS, Sender, a_sender, weights


@pytest.fixture(scope="module")
def door(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door of this module's."""
    with serving(tmp_path_factory.mktemp("models"), module_database_url) as door:
        yield door


@pytest.fixture(scope="module")
def whole_module(door: Door) -> Sender:
    """The owner with one version of a family that we have no list for, for the whole module."""
    return a_sender(door, base_model="Other", kind=ModelType.OTHER)


@pytest.fixture
def sender(whole_module: Sender) -> Iterator[Sender]:
    """The sender, for whom the same must lie in rows, blobs and on the disk after the test as before."""
    before = whole_module.everything()
    yield whole_module
    deadline = time.monotonic() + 20
    while (after := whole_module.everything()) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert after == before


def refusals(sender: Sender) -> Counter[str]:
    """How many requests this door has refused so far, by reason."""
    return Counter(sender.door.client().get("/health").json()["refusals"])


@pytest.mark.parametrize("what", REJECT)
def test_each_hostile_file_is_refused_by_put_and_leaves_nothing(sender: Sender, what: str):
    reason, content = REJECT[what]
    before = refusals(sender)
    refused = sender.put(content, "evil.safetensors")
    assert (refused.status_code, refused.json()["code"]) == (422, "weights_refused")
    assert "evil.safetensors" in refused.json()["detail"]
    assert ("can run code" in refused.json()["detail"]) == (reason in RUNS_CODE)
    assert refusals(sender) - before == {f"weights_refused/{reason}": 1}


@pytest.mark.parametrize("what", [name for name, (_, content) in REJECT.items() if 1 < len(content) < 100_000])
def test_each_hostile_file_is_refused_in_parts_and_leaves_nothing(sender: Sender, what: str):
    reason, content = REJECT[what]
    before = refusals(sender)
    path = sender.begin(len(content), "evil.safetensors")
    offset, half = 0, len(content) // 2
    for piece in (content[:half], content[half:]):
        response = sender.send(path, offset, piece)
        offset += len(piece)
        if response.status_code != 204:
            break
    assert (response.status_code, response.json()["code"]) == (422, "weights_refused")
    assert refusals(sender) - before == {f"weights_refused/{reason}": 1}
    assert sender.http.head(path, headers=TUS).status_code == 404


@pytest.mark.parametrize("what", ACCEPT)
def test_each_honest_file_is_taken(door: Door, what: str):
    response = a_sender(door, base_model="Other", kind=ModelType.OTHER).put(ACCEPT[what])
    assert (response.status_code, response.json()["checked"]) == (201, "structure")


def test_a_long_header_comes_in_pieces_of_a_length_that_nobody_said(door: Door):
    content = ACCEPT["50,000 tensors"]
    sender = a_sender(door, base_model="Other", kind=ModelType.OTHER)
    pieces = (content[begin : begin + 65_536] for begin in range(0, len(content), 65_536))
    assert sender.put(pieces).status_code == 201


def test_a_hash_that_is_not_the_files_refuses_it(sender: Sender):
    refused = sender.put(SOUND, sha256="0" * 64)
    assert (refused.status_code, refused.json()["code"]) == (422, "upload_refused")
    path = sender.begin(len(SOUND), sha256="0" * 64)
    assert "not 0000" in sender.send(path, 0, SOUND).json()["detail"]


def test_a_pickle_is_refused_at_its_beginning(sender: Sender):
    """Its sender is told after the first bytes, not after the last."""
    path = sender.begin(16 * 1024**3)
    refused = sender.send(path, 0, REJECT["torch zip"][1] + bytes(1024))
    assert (refused.status_code, "torch.load" in refused.json()["detail"]) == (422, True)


def raw(sender: Sender, head: str, content: bytes, *, leave: Callable[[], bool] | None = None) -> bytes:
    """A request as it is written here, and what comes back; with `leave` the client goes away as soon as that is so."""
    address = urlsplit(sender.door.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(f"{head}Host: x\r\nAuthorization: Bearer {sender.door.key}\r\n\r\n".encode() + content)
        if leave is None:
            return connection.recv(4096)
        deadline = time.monotonic() + 20
        while not leave() and time.monotonic() < deadline:
            time.sleep(0.01)
        return b""


def put_head(sender: Sender, length: int) -> str:
    """The head of a PUT that says that it brings `length` bytes."""
    path = f"/api/v1/model-versions/{sender.version_id}/files/a.safetensors"
    return f"PUT {path} HTTP/1.1\r\nContent-Length: {length}\r\n"


def test_a_content_length_over_the_limit_is_refused_before_the_body(sender: Sender):
    assert raw(sender, put_head(sender, 16 * 1024**3 + 1), b"").startswith(b"HTTP/1.1 413")


def test_a_body_longer_than_its_content_length_is_cut_there(sender: Sender):
    response = raw(sender, put_head(sender, len(SOUND) - 1), SOUND + b"x" * 5000)
    assert response.startswith(b"HTTP/1.1 422")


def test_a_client_that_stops_at_99_percent_is_sent_unavailable(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.3)
    response = raw(sender, put_head(sender, len(SOUND) + 1), SOUND)
    assert response.startswith(b"HTTP/1.1 408")


def test_a_client_that_goes_unavailable_in_a_put_leaves_nothing(sender: Sender):
    before = sender.parts
    raw(sender, put_head(sender, len(SOUND) + 1), SOUND, leave=lambda: sender.parts != before)


def is_as_long(path: Path, size: int) -> bool:
    """Whether a file is there with so many bytes."""
    return path.exists() and path.stat().st_size == size


def test_a_cut_patch_keeps_what_arrived(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incoming_files, "PIECE", 1000)
    sender, content = a_sender(door), weights(4)
    for ending in ("silence", "disconnect"):
        path = sender.begin(len(content), f"{ending}.safetensors")
        head = f"PATCH {path} HTTP/1.1\r\nContent-Length: {len(content)}\r\nUpload-Offset: 0\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in BYTES.items())
        monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.3 if ending == "silence" else 30.0)
        part = door.settings.model_uploads_folder / path.rsplit("/", 1)[-1] / "bytes"
        arrived = partial(is_as_long, part, 70_000)
        raw(sender, head, content[:70_000], leave=arrived if ending == "disconnect" else None)
        deadline = time.monotonic() + 20
        while sender.offset(path) == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert sender.offset(path) == 70_000
        assert sender.send(path, 70_000, content[70_000:]).status_code == 204


def test_a_cut_patch_with_a_checksum_keeps_nothing(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_body, "SILENT_SECONDS", 0.3)
    path = sender.begin(len(SOUND))
    head = (
        f"PATCH {path} HTTP/1.1\r\nContent-Length: {len(SOUND)}\r\nUpload-Offset: 0\r\nUpload-Checksum: sha1 AAAA\r\n"
    )
    response = raw(sender, head + "".join(f"{name}: {value}\r\n" for name, value in BYTES.items()), SOUND[:9])
    assert response.startswith(b"HTTP/1.1 408")
    assert sender.offset(path) == 0
    assert sender.http.delete(path, headers=TUS).status_code == 204


@pytest.mark.parametrize("kind", ["multipart/form-data; boundary=b", "application/json"])
def test_forms_are_told_to_send_the_bytes_as_they_are(sender: Sender, kind: str):
    path = f"/api/v1/model-versions/{sender.version_id}/files/a.safetensors"
    response = sender.http.put(path, content=b"--b--", headers={"Content-Type": kind})
    assert (response.status_code, "curl -T" in response.json()["detail"]) == (415, True)


def test_more_uploads_than_an_account_may_have_are_refused(door: Door):
    sender = a_sender(door, account="eager")
    for number in range(100):
        sender.begin(10, f"{number}.safetensors")
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata("more.safetensors")}
    refused = sender.http.post("/api/v1/uploads", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (403, "quota_exceeded")


def test_a_large_file_takes_little_memory_of_the_server(sender: Sender):
    """128 MiB pass through this very process: what it takes must not grow with them."""
    piece = bytes(1024 * 1024)
    peak, stop, process = [0], threading.Event(), psutil.Process()
    before = process.memory_info().rss

    def watch() -> None:
        while not stop.wait(0.02):
            peak[0] = max(peak[0], process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    start = len(header).to_bytes(8, "little") + header
    refused = sender.put(iter([start, *[piece] * 128]))
    stop.set()
    watcher.join()
    assert (refused.status_code, refused.json()["code"]) == (422, "weights_refused")
    assert peak[0] - before < 64 * 1024 * 1024


def test_uploads_under_way_are_limited(door: Door, sender: Sender):
    address = urlsplit(door.url)
    head = f"{put_head(sender, 1000)}Host: x\r\nAuthorization: Bearer {door.key}\r\n\r\n"
    under_way: list[socket.socket] = []
    before = len(sender.parts)
    try:
        for _ in range(UPLOADS_PER_ACCOUNT):
            under_way.append(socket.create_connection((address.hostname, address.port), timeout=20))
            under_way[-1].sendall(head.encode() + b"x")
        deadline = time.monotonic() + 20
        while len(sender.parts) < before + UPLOADS_PER_ACCOUNT and time.monotonic() < deadline:
            time.sleep(0.01)
        response: httpx.Response = sender.put(SOUND, "b.safetensors")
        assert (response.status_code, response.headers["retry-after"]) == (429, "5")
    finally:
        for connection in under_way:
            connection.close()
