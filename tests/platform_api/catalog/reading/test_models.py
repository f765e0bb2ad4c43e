"""The catalogue's read API: shapes, who sees what, caching, addresses."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any
from urllib.parse import urlsplit

import httpx
from psycopg.types.json import Jsonb

from storage.postgres.catalog import models
from storage.postgres.connection import Query
from tests.platform_api.catalog.reading.shelf import PRUNED, Shelf, put
from tests.platform_api.door import ALL, listening
from tests.platform_api.http.test_problems import assert_problem


def test_a_model_has_the_shape_that_clients_know(shelf: Shelf) -> None:
    shown = shelf.get(f"/api/v1/models/{shelf.model.id}").json()
    listed = shelf.get("/api/v1/models?sort=Newest").json()
    assert next(item for item in listed["items"] if item["id"] == shelf.model.id) == shown
    assert listed["metadata"] == {}
    assert (shown["description"], shown["tags"], shown["type"]) == ("<p>Warm.</p>", ["lighting", "style"], "Checkpoint")
    assert shown["creator"] == {"username": "owner", "image": None}
    assert shown["stats"]["downloadCount"] == 0
    [version] = shown["modelVersions"]
    assert (version["index"], version["baseModel"], version["earlyAccessConfig"]) == (0, "SD 1.5", {})
    full, pruned = sorted(version["files"], key=lambda file: file["id"])
    assert (full["primary"], pruned["primary"]) == (False, True)
    assert pruned["downloadUrl"] == version["downloadUrl"]
    assert urlsplit(version["downloadUrl"]).query == ""
    assert pruned["hashes"]["SHA256"] == hashlib.sha256(PRUNED).hexdigest().upper()
    assert set(pruned["hashes"]) == {"AutoV1", "AutoV2", "AutoV3", "SHA256", "CRC32", "BLAKE3"}
    assert pruned["sizeKB"] * 1024 == len(PRUNED)
    detail = shelf.get(f"/api/v1/model-versions/{shelf.version.id}").json()
    assert detail["air"] == f"urn:air:sd1:checkpoint:civitai:{shelf.model.id}@{shelf.version.id}"
    assert detail["files"] == version["files"]
    assert detail["model"] == {"name": "Copper Lantern", "type": "Checkpoint", "nsfw": False, "poi": False}


def test_drafts_and_private_models_are_their_owners_alone(shelf: Shelf) -> None:
    stranger = shelf.door.new_key(*ALL, account="stranger")
    options: dict[str, dict[str, Any]] = {"a draft": {"publish": False}, "a private one": {"availability": "Private"}}
    for name, option in options.items():
        model, version = put(shelf.door, name, name.encode(), **option)
        for path in (
            f"/api/v1/models/{model.id}",
            f"/api/v1/model-versions/{version.id}",
            f"/api/v1/model-versions/mini/{version.id}",
            f"/api/v1/model-versions/by-hash/{hashlib.sha256(name.encode()).hexdigest()}",
            f"/api/download/models/{version.id}",
        ):
            assert {shelf.get(path, key).status_code for key in ("", stranger)} == {404}, path
            assert shelf.get(path, shelf.door.key).status_code in (200, 307), path
        assert model.id not in [item["id"] for item in shelf.get("/api/v1/models", shelf.door.key).json()["items"]]


def test_what_is_gone_says_so_and_why(shelf: Shelf) -> None:
    model, version = put(shelf.door, "to be taken down", b"gone" * 9)
    link = shelf.get(f"/api/download/models/{version.id}").headers["location"]
    paths = (f"/api/v1/models/{model.id}", f"/api/v1/model-versions/{version.id}", f"/api/download/models/{version.id}")
    shelf.door.database.run(models.take_down(model, "copyright claim 12"))
    for path in (*paths, f"/api/v1/model-versions/by-hash/{hashlib.sha256(b'gone' * 9).hexdigest()}"):
        body = assert_problem(shelf.get(path), 410)
        assert (body["code"], "copyright claim 12" in str(body["detail"])) == ("gone", True)
    assert_problem(shelf.get(link), 410)
    shelf.door.database.run(models.restore(model))
    assert {shelf.get(path).status_code for path in paths} == {200, 307}
    shelf.door.database.run(models.delete(model, "deleted by its owner"))
    assert {shelf.get(path).status_code for path in paths} == {410}


def test_a_response_is_kept_and_asked_about(shelf: Shelf) -> None:
    path = f"/api/v1/models/{shelf.model.id}"
    first = shelf.get(path)
    assert first.headers["cache-control"] == "public, max-age=0, must-revalidate"
    again = shelf.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    shelf.door.database.run(models.change(shelf.model, {"description": "<p>Warmer.</p>"}))
    changed = shelf.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert changed.json()["description"] == "<p>Warmer.</p>"
    shelf.door.database.run(models.change(shelf.model, {"description": "<p>Warm.</p>"}))
    assert shelf.get(path, shelf.door.key).headers["cache-control"].startswith("private")


def test_a_host_that_we_do_not_know_gets_into_no_address(shelf: Shelf) -> None:
    settings = shelf.door.settings.model_copy(deep=True)
    settings.api.allowed_hosts = ["models.example"]
    with listening(settings) as url:
        path = f"{url}/api/v1/models/{shelf.model.id}"
        for host, base in (("evil.example", url), ("models.example", "http://models.example")):
            shown = httpx.get(path, headers={"Host": host}).json()["modelVersions"][0]
            assert shown["downloadUrl"] == f"{base}/api/download/models/{shelf.version.id}"
            assert "evil" not in str(shown)


def test_a_banned_creators_models_are_not_there(shelf: Shelf) -> None:
    account = shelf.door.account("villain")
    theirs = dataclasses.replace(shelf.door, account_id=account)
    model, version = put(theirs, "villainous", b"villain")
    assert shelf.get(f"/api/v1/models/{model.id}").status_code == 200
    ban = "update accounts set status = 'banned', ban_reason = 'spam' where name = 'villain'"
    shelf.door.database.run(Query(ban, {}, len))
    for path in (f"/api/v1/models/{model.id}", f"/api/download/models/{version.id}"):
        assert_problem(shelf.get(path), 404)
    assert "villain" not in shelf.get("/api/v1/creators").text


def test_the_recipe_of_a_version_names_no_photo_of_its_job(shelf: Shelf) -> None:
    _, version = put(shelf.door, "Trained Before", b"trained" * 9)
    request = {"model_name": "mug", "recipe": {"max_steps": 8}, "warnings": ["Anna at home.jpg is small"], "needs": []}
    update = "update model_versions set recipe = %(recipe)s where id = %(id)s"
    shelf.door.database.run(Query(update, {"recipe": Jsonb(request), "id": version.id}, len))
    detail = shelf.get(f"/api/v1/model-versions/{version.id}").json()
    assert detail["recipe"] == {"modelName": "mug", "recipe": {"maxSteps": 8}}
