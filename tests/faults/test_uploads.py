"""API processes that die in the middle of an upload, or take it both at once: nothing received is lost or changed."""

from __future__ import annotations

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.platform_api.door import Door, serving
from tests.platform_api.process import Process
from tests.platform_api.sending import BYTES, TUS, Sender, a_sender, weights

CONTENT = weights(5, 4_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PIECE = 64 * 1024


@pytest.fixture(scope="module")
def door(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """One API process, in this one."""
    with serving(tmp_path_factory.mktemp("faults"), module_database_url) as door:
        yield door


@pytest.fixture(scope="module")
def other(door: Door) -> Iterator[Process]:
    """Another API process over the same stores and the same disk."""
    with Process(door.settings) as process:
        yield process


def bytes_on_disk(sender: Sender, path: str) -> int:
    """How far a part has come on the disk, received or not."""
    part = sender.door.settings.model_uploads_folder / path.rsplit("/", 1)[-1] / "bytes"
    return part.stat().st_size if part.exists() else 0


def dripping(content: bytes, begin: int, gate: threading.Event, held_at: int) -> Iterator[bytes]:
    """The content from `begin`; after `held_at` it waits for the gate."""
    for at in range(begin, len(content), PIECE):
        if at >= held_at:
            gate.wait(60)
        yield content[at : at + PIECE]


def send_held(
    sender: Sender, url: str, path: str, begin: int, held_at: int
) -> tuple[threading.Thread, threading.Event]:
    """A PATCH in a thread that stops in the middle until the gate opens; its errors are the other end's."""
    gate = threading.Event()

    def send() -> None:
        headers = {**BYTES, "Upload-Offset": str(begin), "Authorization": f"Bearer {sender.door.key}"}
        try:
            httpx.patch(f"{url}{path}", headers=headers, content=dripping(CONTENT, begin, gate, held_at), timeout=60)
        except httpx.TransportError:
            return

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while bytes_on_disk(sender, path) <= begin and time.monotonic() < deadline:
        time.sleep(0.01)
    return thread, gate


def test_a_killed_process_costs_only_what_was_not_acknowledged(door: Door, other: Process):
    sender = a_sender(door)
    path, received = sender.begin(len(CONTENT)), 0
    for held_at in (2_000_000, 5_000_000):
        sent = sender.http.patch(
            f"{other.url}{path}",
            content=CONTENT[received : received + 500_000],
            headers={**BYTES, "Upload-Offset": str(received)},
        )
        assert sent.status_code == 204, sent.text
        received += 500_000
        thread, gate = send_held(sender, other.url, path, received, held_at)
        assert bytes_on_disk(sender, path) > received
        other.kill()
        gate.set()
        thread.join(timeout=60)
        assert sender.offset(path) == received
        other.start()
    assert sender.http.head(f"{other.url}{path}", headers=TUS).headers["upload-offset"] == str(received)
    last = sender.http.patch(
        f"{other.url}{path}", content=CONTENT[received:], headers={**BYTES, "Upload-Offset": str(received)}
    )
    assert last.status_code == 204, last.text
    assert sender.files() == [("a.safetensors", SHA256)]
    assert sender.http.get(f"/api/v1/model-versions/{sender.version_id}/files/a.safetensors").content == CONTENT
    assert sender.parts == []


def test_two_processes_never_write_to_one_upload(door: Door, other: Process):
    sender = a_sender(door)
    path = sender.begin(len(CONTENT))
    thread, gate = send_held(sender, door.url, path, 0, 3_000_000)
    for url in (other.url, door.url):
        busy = sender.http.patch(f"{url}{path}", content=CONTENT, headers={**BYTES, "Upload-Offset": "0"})
        assert (busy.status_code, busy.json()["code"]) == (423, "upload_busy")
        assert sender.http.delete(f"{url}{path}", headers=TUS).status_code == 423
    gate.set()
    thread.join(timeout=60)
    assert sender.files() == [("a.safetensors", SHA256)]


def test_a_process_goes_on_with_what_another_received(door: Door, other: Process):
    sender, cuts = a_sender(door), (0, 10, 1_100_000, 1_100_001, 5_000_000, len(CONTENT))
    path = sender.begin(len(CONTENT))
    for (begin, end), url in zip(itertools.pairwise(cuts), itertools.cycle((door.url, other.url)), strict=False):
        sent = sender.http.patch(
            f"{url}{path}", content=CONTENT[begin:end], headers={**BYTES, "Upload-Offset": str(begin)}
        )
        assert sent.status_code == 204, sent.text
    assert sender.files() == [("a.safetensors", SHA256)]


def test_a_process_that_dies_when_it_stored_the_file_leaves_an_upload_that_goes_on(door: Door):
    """The bytes are in the blob store by then, linked to the part: the next one must not write through the link."""
    sender = a_sender(door)
    path = sender.begin(len(CONTENT))
    assert sender.send(path, 0, CONTENT[:1_000_000]).status_code == 204
    folder = door.settings.model_uploads_folder / path.rsplit("/", 1)[-1]
    blob = Path(door.settings.data_folder / "blobs" / SHA256[:2] / SHA256)
    if not blob.exists():
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(CONTENT)
    (folder / "bytes").unlink()
    os.link(blob, folder / "bytes")

    assert sender.send(path, 1_000_000, CONTENT[1_000_000:2_000_000]).status_code == 204
    assert blob.read_bytes() == CONTENT
    assert sender.send(path, 2_000_000, CONTENT[2_000_000:]).status_code == 204
    assert sender.files() == [("a.safetensors", SHA256)]


def test_bytes_that_the_disk_lost_end_the_upload(door: Door):
    sender = a_sender(door)
    before, path = sender.everything(), sender.begin(len(CONTENT))
    sender.send(path, 0, CONTENT[:1000])
    (door.settings.model_uploads_folder / path.rsplit("/", 1)[-1] / "bytes").write_bytes(CONTENT[:999])
    gone = sender.send(path, 1000, CONTENT[1000:])
    assert (gone.status_code, gone.json()["code"]) == (410, "gone")
    assert sender.http.head(path, headers=TUS).status_code == 404
    assert sender.everything() == before
