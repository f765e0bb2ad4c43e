"""Model files that were uploaded: whose versions they join, under which names, and what is said of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from platform_api.http import request_body
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.records.catalog.vocabulary import ModelType
from tests.platform_api.door import ALL, Door
from tests.platform_api.sending import STOPPED, TUS, Sender, a_sender, stopping_its_key, weights

CONTENT = weights()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def sender(shared_door: Door) -> Sender:
    """The owner with a new version."""
    return a_sender(shared_door)


def test_a_plain_put_is_a_file_of_its_version_and_again_the_same(sender: Sender):
    made = sender.put(iter([CONTENT[:5], CONTENT[5:]]), sha256=SHA256, type="Pruned Model")
    assert (made.status_code, made.json()["sha256"], made.json()["type"]) == (201, SHA256, "Pruned Model")
    assert made.headers["location"] == made.json()["url"]
    again = sender.put(CONTENT)
    assert (again.status_code, again.json()["id"]) == (200, made.json()["id"])
    assert sender.files() == [("a.safetensors", SHA256)]
    assert sender.parts == []


@pytest.mark.parametrize("key_seconds", [0.0, 600.0], ids=["while the bytes come", "as the file becomes a row"])
@pytest.mark.parametrize("how", ["revoked", "banned"])
@pytest.mark.parametrize("in_parts", [True, False])
def test_a_key_that_stops_working_finishes_no_upload(
    shared_door: Door, monkeypatch: pytest.MonkeyPatch, how: str, key_seconds: float, in_parts: bool
):
    monkeypatch.setattr(request_body, "KEY_SECONDS", key_seconds)
    name = f"{how}-{key_seconds:.0f}-{in_parts}"
    key, sender = shared_door.new_key(*ALL, account=name), a_sender(shared_door, account=name)
    sender.http = shared_door.client(key)

    sending = stopping_its_key(shared_door, key, name, how, CONTENT)
    path = sender.begin(len(CONTENT)) if in_parts else ""
    refused = sender.send(path, 0, sending) if in_parts else sender.put(sending)
    assert (refused.status_code, refused.json()["code"]) == STOPPED[how], refused.text
    rows = Query("select from version_files where version_id = %(id)s", {"id": sender.version_id}, len)
    assert shared_door.database.run(rows) == 0


def test_one_file_twice_is_one_blob(shared_door: Door):
    senders, content = [a_sender(shared_door), a_sender(shared_door)], weights(2)
    before = len(shared_door.blobs)
    assert [sender.put(content).status_code for sender in senders] == [201, 201]
    assert len(shared_door.blobs) == before + 1


@pytest.mark.parametrize(
    ("name", "said"), [("a.ckpt", "pickle by its name"), ("a.zip", "does not end in .safetensors")]
)
def test_other_files_are_refused_by_their_names(sender: Sender, name: str, said: str):
    headers = {**TUS, "Upload-Length": "10", "Upload-Metadata": sender.metadata(name)}
    for response in (sender.http.post("/api/v1/uploads", headers=headers), sender.put(b"x", name)):
        assert (response.status_code, response.json()["code"]) == (422, "weights_refused")
        assert said in response.json()["detail"]


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
    response = sender.send(path, 0, CONTENT)
    assert (response.status_code, "spam" in response.json()["detail"]) == (410, True)
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
