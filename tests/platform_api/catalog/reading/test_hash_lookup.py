"""Files are found by their hashes."""

from __future__ import annotations

import hashlib

from storage.postgres.catalog import versions
from tests.platform_api.catalog.reading.shelf import Shelf, put
from tests.platform_api.http.test_problems import assert_problem


def test_a_file_is_found_by_each_of_its_hashes_in_any_case(shelf: Shelf) -> None:
    [files] = [version["files"] for version in shelf.get(f"/api/v1/models/{shelf.model.id}").json()["modelVersions"]]
    for kind, text in files[0]["hashes"].items():
        for written in (text, text.lower()):
            found = shelf.get(f"/api/v1/model-versions/by-hash/{written}")
            assert found.json().get("id") == shelf.version.id, kind
    client, known = shelf.door.client(""), files[0]["hashes"]["SHA256"]
    whole = client.post("/api/v1/model-versions/by-hash", json=[known.lower(), "0" * 64]).json()
    assert [version["id"] for version in whole] == [shelf.version.id]
    ids = client.post("/api/v1/model-versions/by-hash/ids", json=[known] * 10_000).json()
    assert ids == [{"modelVersionId": shelf.version.id, "modelId": shelf.model.id, "hash": known}]
    for body in ([known] * 101, ["x"], {"a": 1}, [1]):
        assert_problem(client.post("/api/v1/model-versions/by-hash", json=body), 422)
    assert_problem(client.post("/api/v1/model-versions/by-hash", content=b"["), 400)
    for unknown in ("0" * 64, "zz", "%00"):
        assert_problem(shelf.get(f"/api/v1/model-versions/by-hash/{unknown}"), 404)


def test_one_hash_on_several_versions_is_the_earliest_publisheds(shelf: Shelf) -> None:
    content = b"twice" * 10
    draft, _ = put(shelf.door, "twin draft", content, publish=False)
    _, first = put(shelf.door, "twin one", content)
    _, second = put(shelf.door, "twin two", content)
    path = f"/api/v1/model-versions/by-hash/{hashlib.sha256(content).hexdigest()}"
    assert shelf.get(path).json()["id"] == first.id
    shelf.door.database.run(versions.delete(first, "deleted by its owner"))
    assert shelf.get(path).json()["id"] == second.id
    shelf.door.database.run(versions.delete(second, "deleted by its owner"))
    assert "deleted by its owner" in str(assert_problem(shelf.get(path), 410)["detail"])
    assert shelf.get(path, shelf.door.key).json()["modelId"] == draft.id
    short = hashlib.sha256(content).hexdigest()[8:16]
    assert_problem(shelf.get(f"/api/v1/model-versions/by-hash/{short}"), 404)
