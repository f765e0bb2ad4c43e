"""Uploads of model files: tus to the letter, a plain PUT, and what a finished one is."""

from __future__ import annotations

import base64
import hashlib
import itertools
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from platform_api import model_files
from storage.blobs.hashing import ModelHasher
from storage.postgres import catalog, models
from storage.postgres.connection import Query
from storage.records.vocabulary import ModelType
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
        answer = shared_door.client("").options(path)
        assert answer.status_code == 204
        assert answer.headers["tus-version"] == "1.0.0"
        assert set(answer.headers["tus-extension"].split(",")) >= {"creation", "checksum", "expiration", "termination"}
        assert int(answer.headers["tus-max-size"]) == 16 * 1024**3
        assert "sha1" in answer.headers["tus-checksum-algorithm"].split(",")


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
    monkeypatch.setattr(model_files, "PIECE", 1000)
    monkeypatch.setattr(model_files, "MARK", 10_000)
    path, seen = sender.begin(len(CONTENT)), list[int]()

    def watched() -> Iterator[bytes]:
        for begin in range(0, len(CONTENT), 20_000):
            deadline = time.monotonic() + 20
            while begin and (offset := sender.offset(path)) < begin - 11_000 and time.monotonic() < deadline:
                time.sleep(0.01)
            seen.append(offset if begin else 0)
            yield CONTENT[begin : begin + 20_000]

    assert sender.send(path, 0, watched()).status_code == 204
    assert seen == sorted(set(seen))
    assert len(seen) == 6
    assert sender.files() == [("a.safetensors", SHA256)]


def test_a_file_that_ends_at_a_mark_is_whole(sender: Sender, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_files, "PIECE", len(CONTENT))
    monkeypatch.setattr(model_files, "MARK", len(CONTENT))
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


def test_a_plain_put_is_a_file_of_its_version_and_again_the_same(sender: Sender):
    made = sender.put(iter([CONTENT[:5], CONTENT[5:]]), sha256=SHA256, type="Pruned Model")
    assert (made.status_code, made.json()["sha256"], made.json()["type"]) == (201, SHA256, "Pruned Model")
    assert made.headers["location"] == made.json()["url"]
    again = sender.put(CONTENT)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert sender.files() == [("a.safetensors", SHA256)]
    assert sender.parts == []


def test_one_file_twice_is_one_blob(shared_door: Door):
    senders, content = [a_sender(shared_door), a_sender(shared_door)], weights(2)
    before = len(shared_door.blobs)
    assert [sender.put(content).status_code for sender in senders] == [201, 201]
    assert len(shared_door.blobs) == before + 1


@pytest.mark.parametrize("missing", ["Upload-Length", "Upload-Metadata"])
def test_what_a_creation_must_say_is_asked_for(sender: Sender, missing: str):
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata()}
    del headers[missing]
    answer = sender.http.post("/api/v1/uploads", headers=headers)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [missing])


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
    answer = sender.http.post("/api/v1/uploads", headers=said, content=body)
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
    assert answer.headers["tus-resumable"] == "1.0.0"
    assert ("tus-version" in answer.headers) == (status == 412)
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
    answer = sender.http.post("/api/v1/uploads", headers=headers)
    assert (answer.status_code, list(answer.json()["errors"])) == (422, [field])


@pytest.mark.parametrize(
    ("name", "said"), [("a.ckpt", "pickle by its name"), ("a.zip", "does not end in .safetensors")]
)
def test_other_files_are_refused_by_their_names(sender: Sender, name: str, said: str):
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata(name)}
    for answer in (sender.http.post("/api/v1/uploads", headers=headers), sender.put(b"x", name)):
        assert (answer.status_code, answer.json()["code"]) == (422, "weights_refused")
        assert said in answer.json()["detail"]


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
            sender.http.get(f"{url}/health")
    assert sender.everything() == before
    assert sender.http.head(path, headers=TUS).status_code == 404


def test_only_owners_and_moderators_add_files(shared_door: Door):
    theirs = a_sender(shared_door, account="somebody")
    mine, path = a_sender(shared_door), theirs.begin(len(CONTENT))
    assert mine.http.head(path, headers=TUS).status_code == 404
    shared_door.database.run(Query("update accounts set role = 'moderator' where name = 'owner'", {}, len))
    mine.version_id, other = theirs.version_id, a_sender(shared_door, account="another")
    assert mine.put(CONTENT, "by-moderator.safetensors").status_code == 201
    other.version_id = theirs.version_id
    assert other.put(CONTENT, "b.safetensors").status_code == 404
    model = shared_door.database.run(catalog.model_by_id(theirs.model_id))
    shared_door.database.run(models.publish(model))
    refused = other.put(CONTENT, "b.safetensors")
    assert (refused.status_code, refused.json()["code"]) == (403, "not_allowed")


def test_a_taken_name_is_refused_without_its_bytes_or_with(sender: Sender):
    assert sender.put(CONTENT).status_code == 201
    before = sender.everything()
    other = weights(3)
    known = sender.put(iter(()), sha256="0" * 64)
    assert (known.status_code, known.json()["code"]) == (409, "file_exists")
    assert sender.put(other).json()["code"] == "file_exists"
    path = sender.begin(len(other))
    assert sender.send(path, 0, other).json()["code"] == "file_exists"
    assert sender.http.head(path, headers=TUS).status_code == 404
    assert sender.everything() == before


def test_uploads_of_one_file_at_once_are_one_file_and_one_blob(sender: Sender):
    content, blobs = weights(7, 1_000_000), len(sender.door.blobs)
    others = [a_sender(sender.door) for _ in range(2)]
    begun = [(one, one.begin(len(content))) for one in (sender, sender, *others)]
    for one, path in begun:
        assert one.send(path, 0, content[:100]).status_code == 204
    with ThreadPoolExecutor(len(begun)) as pool:
        sent = list(pool.map(lambda job: job[0].send(job[1], 100, content[100:]).status_code, begun))
    assert sent == [204] * len(begun)
    files = [one.http.get(path).json()["file"] for one, path in begun]
    assert files[0]["id"] == files[1]["id"]
    assert len({file["id"] for file in files}) == 3
    assert len(sender.door.blobs) == blobs + 1
    assert [one.files() for one in (sender, *others)] == [[("a.safetensors", hashlib.sha256(content).hexdigest())]] * 3


def test_a_version_deleted_meanwhile_refuses_its_file(sender: Sender):
    path = sender.begin(len(CONTENT))
    delete = "update model_versions set status = 'Deleted', gone_at = now(), gone_reason = 'spam' where id = %(id)s"
    sender.door.database.run(Query(delete, {"id": sender.version_id}, len))
    answer = sender.send(path, 0, CONTENT)
    assert (answer.status_code, "spam" in answer.json()["detail"]) == (410, True)
    assert sender.http.head(path, headers=TUS).status_code == 404


@pytest.fixture
def small(shared_door: Door) -> Iterator[Sender]:
    """The door with a small limit."""
    limits = shared_door.settings.uploads
    before, limits.max_model_bytes = limits.max_model_bytes, len(CONTENT)
    yield a_sender(shared_door)
    limits.max_model_bytes = before


def test_the_limit_is_a_setting_and_holds_to_the_byte(small: Sender):
    assert small.put(CONTENT).status_code == 201
    for body in (CONTENT + b"x", iter([CONTENT, b"x"])):
        assert small.put(body, "b.safetensors").status_code == 413
    assert small.files() == [("a.safetensors", SHA256)]


def test_a_file_of_no_known_family_is_marked_as_sound_only(shared_door: Door):
    other = a_sender(shared_door, base_model="Flux.1 D")
    assert other.put(CONTENT).json()["checked"] == "structure"
    embedding = a_sender(shared_door, kind=ModelType.TEXTUAL_INVERSION)
    assert embedding.put(CONTENT).json()["checked"] == "structure"
    shown = other.http.get(f"/api/v1/model-versions/{other.version_id}").json()["files"][0]["metadata"]
    assert shown == {"format": "SafeTensor", "fp": "fp16", "checked": "structure"}
