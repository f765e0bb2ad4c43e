"""Uploads of model files in parts: tus to the letter, and nothing left of what ends before it is whole."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from platform_api.catalog.uploads import incoming_files
from storage.blobs.hashing import ModelHasher
from storage.postgres.connection import Query
from tests.platform_api.door import Door, listening
from tests.platform_api.sending import BYTES, TUS, Sender, a_sender, weights

CONTENT = weights()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def sender(shared_door: Door) -> Sender:
    """The owner with a new version."""
    return a_sender(shared_door)


def test_options_say_what_the_server_can_do(shared_door: Door):
    for path in ("/api/v1/uploads", "/api/v1/uploads/6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"):
        response = shared_door.client("").options(path)
        assert response.status_code == 204
        assert response.headers["tus-version"] == "1.0.0"
        assert set(response.headers["tus-extension"].split(",")) >= {
            "creation",
            "checksum",
            "expiration",
            "termination",
        }
        assert int(response.headers["tus-max-size"]) == 16 * 1024**3
        assert "sha1" in response.headers["tus-checksum-algorithm"].split(",")


def test_an_upload_in_parts_becomes_a_file_of_its_version(sender: Sender):
    path = sender.begin(len(CONTENT), sha256=SHA256.upper())
    first = sender.http.head(path, headers=TUS)
    assert (first.headers["upload-offset"], first.headers["upload-length"]) == ("0", str(len(CONTENT)))
    assert first.headers["upload-metadata"] == sender.metadata(sha256=SHA256.upper())
    assert (first.headers["cache-control"], first.content) == ("no-store", b"")

    for begin, end in itertools.pairwise((0, 10, 600, 70_000, len(CONTENT))):
        sent = sender.send(path, begin, CONTENT[begin:end])
        assert (sent.status_code, sent.headers["upload-offset"]) == (204, str(end)), sent.text
        assert sent.headers["upload-expires"].endswith(" GMT")
        assert sent.headers["tus-resumable"] == "1.0.0"

    view = sender.http.get(path).json()
    hasher = ModelHasher()
    hasher.take(CONTENT)
    assert (view["offset"], view["file"]["sha256"], view["file"]["fp"]) == (len(CONTENT), SHA256, "fp16")
    assert view["file"]["checked"] == "family"
    assert view["file"]["hashes"] == {
        "AutoV1": hasher.finish().hashes.auto_v1,
        "AutoV2": SHA256[:10].upper(),
        "AutoV3": hasher.finish().hashes.auto_v3,
        "SHA256": SHA256.upper(),
        "CRC32": hasher.finish().hashes.crc32,
        "BLAKE3": hasher.finish().hashes.blake3,
    }
    assert sender.http.get(view["file"]["url"]).content == CONTENT
    assert sender.files() == [("a.safetensors", SHA256)]
    assert sender.offset(path) == len(CONTENT)
    assert path.rsplit("/", 1)[-1] not in [part.name for part in sender.parts]


def test_bytes_are_received_on_the_way(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    """A process that dies costs its sender no more than MARK bytes; the last ones are received with the file alone."""
    monkeypatch.setattr(incoming_files, "PIECE", 1000)
    monkeypatch.setattr(incoming_files, "MARK", 10_000)
    path, seen = sender.begin(len(CONTENT)), list[int]()

    def watched() -> Iterator[bytes]:
        offset = 0
        for begin in range(0, len(CONTENT), 20_000):
            deadline = time.monotonic() + 20
            while begin and (offset := sender.offset(path)) < begin - 11_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(offset)
            yield CONTENT[begin : begin + 20_000]

    assert sender.send(path, 0, watched()).status_code == 204
    assert seen == sorted(set(seen))
    assert len(seen) == 6
    assert sender.files() == [("a.safetensors", SHA256)]


def test_a_file_that_ends_at_a_mark_is_whole(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(incoming_files, "PIECE", len(CONTENT))
    monkeypatch.setattr(incoming_files, "MARK", len(CONTENT))
    assert sender.send(sender.begin(len(CONTENT)), 0, CONTENT).status_code == 204


def test_a_creation_whose_bytes_cannot_be_taken_leaves_nothing(sender: Sender, shared_door: Door):
    before = sender.everything()
    headers = {**BYTES, "Upload-Length": "10", "Upload-Metadata": sender.metadata()}
    assert sender.http.post("/api/v1/uploads", content=b"x" * 11, headers=headers).status_code == 413
    assert (
        sender.http.post(
            "/api/v1/uploads", content=b"not a model", headers={**headers, "Upload-Length": "11"}
        ).status_code
        == 422
    )
    assert sender.everything() == before


def test_a_creation_may_bring_the_first_bytes_or_all(sender: Sender):
    headers = {**BYTES, "Upload-Length": str(len(CONTENT)), "Upload-Metadata": sender.metadata()}
    made = sender.http.post("/api/v1/uploads", content=CONTENT[:999], headers=headers)
    assert (made.status_code, made.headers["upload-offset"]) == (201, "999")
    assert sender.send(made.headers["location"], 999, CONTENT[999:]).status_code == 204

    headers["Upload-Metadata"] = sender.metadata("b.safetensors")
    whole = sender.http.post("/api/v1/uploads", content=CONTENT, headers=headers)
    assert (whole.status_code, whole.headers["upload-offset"]) == (201, str(len(CONTENT)))
    assert sorted(sender.files()) == [("a.safetensors", SHA256), ("b.safetensors", SHA256)]


@pytest.mark.parametrize("missing", ["Upload-Length", "Upload-Metadata"])
def test_what_a_creation_must_say_is_asked_for(sender: Sender, missing: str):
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata()}
    del headers[missing]
    response = sender.http.post("/api/v1/uploads", headers=headers)
    assert (response.status_code, list(response.json()["errors"])) == (422, [missing])


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Tus-Resumable": "0.2.2"}, 412, "tus_version"),
        ({"Tus-Resumable": ""}, 412, "tus_version"),
        ({"Upload-Length": str(16 * 1024**3 + 1)}, 413, "body_too_large"),
        ({"Upload-Length": "0"}, 422, "invalid_request"),
        ({"Upload-Length": "-1"}, 422, "invalid_request"),
        ({"Upload-Length": "1e9"}, 422, "invalid_request"),
        ({"Upload-Length": "9" * 19}, 422, "invalid_request"),
        ({"Upload-Metadata": "filename"}, 422, "invalid_request"),
        ({"Upload-Metadata": "filename a"}, 422, "invalid_request"),
        ({"Upload-Metadata": "filename YQ==,filename YQ=="}, 422, "invalid_request"),
        ({"Upload-Metadata": "filename /w=="}, 422, "invalid_request"),
        ({"Upload-Metadata": "x" * 5000}, 422, "invalid_request"),
        ({"Upload-Checksum": "crc32 AAAA"}, 422, "invalid_request"),
        ({"Upload-Checksum": "sha1 ?"}, 422, "invalid_request"),
        ({"Content-Type": "text/plain", "Content-Length": "3"}, 415, "unsupported_media_type"),
    ],
)
def test_a_creation_that_is_not_to_the_letter_is_refused(
    sender: Sender, headers: dict[str, str], status: int, code: str
):
    before = sender.everything()
    said = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata(), **headers}
    body = b"abc" if "Content-Type" in headers else b""
    response = sender.http.post("/api/v1/uploads", headers=said, content=body)
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    assert response.headers["tus-resumable"] == "1.0.0"
    assert ("tus-version" in response.headers) == (status == 412)
    assert sender.everything() == before


@pytest.mark.parametrize(
    ("name", "more", "field"),
    [
        ("../a.safetensors", {}, "filename"),
        ("a/b.safetensors", {}, "filename"),
        (".safetensors", {}, "filename"),
        ("a\nb.safetensors", {}, "filename"),
        ("\u202ea.safetensors", {}, "filename"),
        ("a" * 121 + ".safetensors", {}, "filename"),
        ("a.safetensors", {"fileType": "Training Data"}, "fileType"),
        ("a.safetensors", {"fileType": "pickle"}, "fileType"),
        ("a.safetensors", {"sha256": "abc"}, "sha256"),
        ("a.safetensors", {"versionId": "x"}, "Upload-Metadata"),
        ("a.safetensors", {"versionId": "9" * 30}, "Upload-Metadata"),
    ],
)
def test_a_file_that_cannot_be_is_refused_before_its_bytes(
    sender: Sender, name: str, more: dict[str, object], field: str
):
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata(name, **more)}
    response = sender.http.post("/api/v1/uploads", headers=headers)
    assert (response.status_code, list(response.json()["errors"])) == (422, [field])


def test_bytes_must_follow_those_that_are_there(sender: Sender):
    path = sender.begin(len(CONTENT))
    sender.send(path, 0, CONTENT[:100])
    for offset in (0, 99, 101):
        wrong = sender.send(path, offset, CONTENT[offset : offset + 5])
        assert (wrong.status_code, wrong.json()["code"], wrong.headers["upload-offset"]) == (409, "wrong_offset", "100")
    assert sender.send(path, 100, CONTENT[100:200], **{"Content-Type": "application/json"}).status_code == 415
    assert sender.send(path, 100, CONTENT[100:200], **{"Tus-Resumable": "2.0.0"}).status_code == 412
    assert sender.send(path, 100, CONTENT[100:] + b"x").status_code == 413
    assert sender.send(path, 100, iter([CONTENT[100:], b"x"])).status_code == 413
    assert sender.offset(path) == 100
    assert sender.send(path, 100, b"").headers["upload-offset"] == "100"
    assert sender.send(path, 100, CONTENT[100:]).status_code == 204
    assert sender.send(path, len(CONTENT), b"").status_code == 204
    assert sender.send(path, len(CONTENT), b"x").status_code == 413


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "md5"])
def test_bytes_that_came_changed_are_not_kept(sender: Sender, algorithm: str):
    def checksum(content: bytes) -> dict[str, str]:
        return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"}

    path = sender.begin(len(CONTENT), f"{algorithm}.safetensors")
    assert sender.send(path, 0, CONTENT[:5000], **checksum(CONTENT[:5000])).status_code == 204
    changed = sender.send(path, 5000, b"x" + CONTENT[5001:], **checksum(CONTENT[5000:]))
    assert (changed.status_code, changed.json()["title"]) == (460, "Checksum Mismatch")
    assert sender.offset(path) == 5000
    assert sender.send(path, 5000, CONTENT[5000:], **checksum(CONTENT[5000:])).status_code == 204
    assert (f"{algorithm}.safetensors", SHA256) in sender.files()


def test_a_sender_may_give_an_upload_up(sender: Sender):
    before = sender.everything()
    path = sender.begin(len(CONTENT))
    sender.send(path, 0, CONTENT[:100])
    assert sender.http.delete(path, headers=TUS).status_code == 204
    assert sender.http.head(path, headers=TUS).status_code == 404
    assert sender.send(path, 100, CONTENT[100:]).status_code == 404
    assert sender.everything() == before


def test_a_post_may_stand_for_what_a_proxy_does_not_pass(sender: Sender):
    path = sender.begin(len(CONTENT))
    patch = {**BYTES, "Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert sender.http.post(path, content=CONTENT[:100], headers=patch).headers["upload-offset"] == "100"
    wrong = sender.http.post(path, content=b"", headers={**patch, "X-HTTP-Method-Override": "PUT"})
    assert list(wrong.json()["errors"]) == ["X-HTTP-Method-Override"]
    assert sender.http.post(path, headers={**TUS, "X-HTTP-Method-Override": "DELETE"}).status_code == 204
    assert sender.http.head(path, headers=TUS).status_code == 404


def test_a_rested_upload_is_gone_and_swept_when_the_api_starts(sender: Sender, shared_door: Door):
    before = sender.everything()
    path = sender.begin(len(CONTENT))
    sender.send(path, 0, CONTENT[:100])
    left = shared_door.settings.model_uploads_folder / str(uuid4())  # by a process that was killed in a PUT
    left.mkdir()
    (left / "bytes").write_bytes(b"never acknowledged")
    for place in (left / "bytes", left):
        os.utime(place, (0, 0))
    shared_door.database.run(Query("update model_uploads set expires_at = now() where file_id is null", {}, len))
    gone = sender.http.head(path, headers=TUS)
    assert (gone.status_code, sender.send(path, 100, b"x").json()["code"]) == (410, "gone")
    with listening(shared_door.settings.model_copy(deep=True)) as url:
        sender.http.get(f"{url}/health")
        for _ in range(200):
            if sender.everything() == before:
                break
            time.sleep(0.05)
    assert sender.everything() == before
    assert sender.http.head(path, headers=TUS).status_code == 404
