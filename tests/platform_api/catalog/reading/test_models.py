"""The catalogue's read API: shapes, lenient queries, hashes, who sees what, caching, addresses, downloads."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from storage.blobs.store import BlobStore
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Scope
from storage.records.catalog.catalog import FileHashes, FileRole, Model, ModelVersion, NewFile, NewImage, VersionFields
from storage.records.catalog.vocabulary import FileType
from tests.platform_api.door import ALL, Door, listening, photo, serving
from tests.platform_api.http.test_problems import assert_problem
from tests.storage.makers import a_model

VERSION = VersionFields(name="v1", base_model="SD 1.5")
FULL, PRUNED = b"full weights" * 200_000, b"pruned weights" * 100_000


@dataclass
class Shelf:
    """A door with one public model of two files and an image."""

    door: Door
    model: Model
    version: ModelVersion

    def get(self, path: str, key: str = "", **options: Any) -> httpx.Response:
        return self.door.client(key).get(path, **options)


def file_of(door: Door, content: bytes, path: str, **facts: Any) -> NewFile:
    blob = BlobStore(door.settings.blobs).put(content)
    digest = blob.sha256
    hashes = FileHashes(auto_v1=digest[8:16], auto_v3=digest[16:28], crc32=digest[28:36], blake3=digest[::-1])
    return NewFile(
        path=path,
        role=FileRole.WEIGHTS,
        sha256=digest,
        size=blob.size,
        hashes=hashes,
        **facts,
    )


def put(door: Door, name: str, *contents: bytes, publish: bool = True, **fields: object) -> tuple[Model, ModelVersion]:
    """A model with one version whose files have these contents."""
    model = a_model(door.database, door.account_id, name, **fields)
    version = door.database.run(versions.create(model, VERSION))
    kinds = [{"size_kind": "full", "fp": "fp32"}, {"size_kind": "pruned", "fp": "fp16", "type": FileType.PRUNED_MODEL}]
    files = [file_of(door, content, f"{n}.safetensors", **kinds[n]) for n, content in enumerate(contents)]
    door.database.run(catalog.add_files(version.id, files))
    if publish:
        door.database.run(models.publish(model))
    return door.database.run(catalog.model_by_id(model.id)), version


@pytest.fixture(scope="module")
def shelf(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    with serving(tmp_path_factory.mktemp("shelf"), module_database_url, valkey_server) as door:
        model, version = put(
            door, "Copper Lantern", FULL, PRUNED, tags=("style", "lighting"), description="<p>Warm.</p>"
        )
        picture = BlobStore(door.settings.blobs).put(photo(3))
        image = NewImage(
            sha256=picture.sha256, size=picture.size, media_type="image/png", width=64, height=48, blurhash="L0"
        )
        door.database.run(catalog.add_images(version.id, door.account_id, [image]))
        yield Shelf(door, model, version)


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


def test_every_style_of_lists_and_booleans_is_read(shelf: Shelf) -> None:
    for query in (
        "types=LORA&types=Checkpoint",
        "types=LORA,Checkpoint",
        "types[]=Checkpoint",
        "type=checkpoint",
        "baseModels=SD 1.5,Pony",
        "tag=Style",
        "tagname=style",
        "username=OWNER",
        "nsfw=true",
        "nsfw=False",
        "nsfw=0",
        "allowCommercialUse=Sell",
        "allowNoCredit=1",
        "fileFormats=SafeTensor",
        f"ids=1,{shelf.model.id}",
        f"modelVersionIds={shelf.version.id}",
        "browsingLevel=1",
        "period=Day",
    ):
        answer = shelf.get(f"/api/v1/models?{query}")
        assert shelf.model.id in [item["id"] for item in answer.json()["items"]], query
        assert "x-ignored-parameters" not in answer.headers
    for query in (
        "types=LORA",
        "baseModels=Pony",
        "tag=none",
        "username=nobody",
        "browsingLevel=8",
        "fileFormats=GGUF",
    ):
        assert shelf.get(f"/api/v1/models?{query}").json()["items"] == [], query


def test_what_is_not_known_is_named_and_what_is_wrong_is_refused(shelf: Shelf) -> None:
    answer = shelf.get("/api/v1/models?colour=red&rating=5")
    assert answer.headers["x-ignored-parameters"] == "colour, rating"
    for query, status, code in (
        ("types=Sculpture", 422, "invalid_request"),
        ("limit=101", 422, "invalid_request"),
        ("limit=-1", 422, "invalid_request"),
        ("nsfw=maybe", 422, "invalid_request"),
        ("tag=%00", 422, "invalid_request"),
        ("tag=a&tag=b", 422, "invalid_request"),
        ("page=11&limit=100", 400, "too_many_pages"),
        ("cursor=zzz", 400, "invalid_cursor"),
        ("cursor=%C3%A9", 400, "invalid_cursor"),
        ("favorites=true", 401, "unauthenticated"),
        ("hidden=false", 401, "unauthenticated"),
    ):
        assert assert_problem(shelf.get(f"/api/v1/models?{query}"), status)["code"] == code, query


def test_pages_are_absolute_and_repeat_what_was_asked(shelf: Shelf) -> None:
    put(shelf.door, "second of a page", b"x" * 10)
    first = shelf.get("/api/v1/models?limit=1&sort=Oldest&types[]=Checkpoint&token=secret&colour=red").json()
    page = first["metadata"]["nextPage"]
    assert page.startswith(f"{shelf.door.url}/api/v1/models?")
    asked = parse_qs(urlsplit(page).query)
    assert asked == {
        "limit": ["1"],
        "sort": ["Oldest"],
        "types": ["Checkpoint"],
        "cursor": [first["metadata"]["nextCursor"]],
    }
    second = httpx.get(page).json()
    assert second["items"][0]["id"] > first["items"][0]["id"]
    refused = shelf.get(f"/api/v1/models?sort=Newest&types=Checkpoint&cursor={first['metadata']['nextCursor']}")
    assert assert_problem(refused, 400)["code"] == "invalid_cursor"
    numbered = shelf.get("/api/v1/models?limit=1&page=2&sort=Oldest").json()
    assert numbered["items"] == second["items"]
    assert numbered["metadata"]["currentPage"] == 2


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


def test_an_answer_is_kept_and_asked_about(shelf: Shelf) -> None:
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


def test_a_download_leads_to_the_file_that_fits(shelf: Shelf) -> None:
    root = f"/api/download/models/{shelf.version.id}"
    for query, content in (("", PRUNED), ("?size=full", FULL), ("?fp=FP32&format=SafeTensor", FULL)):
        led = shelf.get(root + query)
        assert (led.status_code, led.headers["cache-control"]) == (307, "no-store")
        assert "response-content-disposition" in led.headers["location"]
        got = shelf.get(led.headers["location"])
        assert got.content == content
        part = shelf.get(led.headers["location"], headers={"Range": "bytes=-3"})
        assert (part.status_code, part.content) == (206, content[-3:])
    assert got.headers["content-disposition"] == 'attachment; filename="Copper-Lantern_v1.safetensors"'
    assert shelf.door.client("").head(led.headers["location"]).headers["content-length"] == str(len(FULL))
    assert_problem(shelf.get(f"{root}?fp=int4"), 404)
    forged = led.headers["location"].replace("signature=", "signature=0")
    assert_problem(shelf.get(forged), 403)


def test_a_token_in_the_query_opens_downloads_only(shelf: Shelf, caplog: pytest.LogCaptureFixture) -> None:
    model, version = put(shelf.door, "token", b"token", availability="Private")
    caplog.set_level("INFO", logger="darkroom.api")
    led = shelf.get(f"/api/download/models/{version.id}?token={shelf.door.key}")
    assert led.status_code == 307
    assert_problem(shelf.get(f"/api/v1/models/{model.id}?token={shelf.door.key}"), 404)
    assert_problem(shelf.get(f"/api/download/models/{version.id}?token=drk_a_b"), 401)
    secret = shelf.door.key.rsplit("_", 1)[1]
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith("http")]  # not the client's
    assert any("/api/download/models" in line for line in ours)
    assert secret not in str(ours) + str(led.headers)


def test_images_are_listed_with_their_levels_and_shown_without_a_key(shelf: Shelf) -> None:
    listed = shelf.get(f"/api/v1/images?modelId={shelf.model.id}&withTags=true").json()
    [image] = listed["items"]
    assert (image["nsfwLevel"], image["browsingLevel"], image["hash"]) == ("None", 1, "L0")
    assert (image["modelVersionIds"], image["tags"], image["meta"]) == ([shelf.version.id], ["lighting", "style"], None)
    for address in (image["url"], image["url"].replace("original=true", "width=450")):
        shown = httpx.get(address)
        assert (shown.content, shown.headers["content-type"]) == (photo(3), "image/png")
    for query in ("nsfw=true", "browsingLevel=4", "type=video", "tags=99", "username=nobody", "requiringMeta=true"):
        assert shelf.get(f"/api/v1/images?modelId={shelf.model.id}&{query}").json()["items"] == [], query
    for query in ("nsfw=Soft", "nsfw=X", "nsfw=false", "sort=Random", "sort=Oldest", f"postId={shelf.version.id}"):
        found = shelf.get(f"/api/v1/images?modelId={shelf.model.id}&{query}").json()["items"]
        assert [item["id"] for item in found] == [image["id"]], query


def test_creators_tags_and_users_are_those_of_public_models(shelf: Shelf) -> None:
    creators = shelf.get("/api/v1/creators?query=OWN").json()
    assert [item["username"] for item in creators["items"]] == ["owner"]
    assert creators["metadata"]["totalItems"] == 1
    assert httpx.get(creators["items"][0]["link"]).json()["items"]
    tags = shelf.get("/api/v1/tags?limit=1").json()
    assert ([item["name"] for item in tags["items"]], tags["metadata"]["totalPages"]) == (["lighting"], 2)
    assert httpx.get(tags["metadata"]["nextPage"]).json()["items"][0]["name"] == "style"
    number = shelf.door.database.run(accounts.account(shelf.door.account_id)).number
    assert shelf.get(f"/api/v1/users?ids={number}").json() == {"items": [{"id": number, "username": "owner"}]}
    assert shelf.get("/api/v1/me", shelf.door.new_key(Scope.MODELS_READ)).json()["id"] == number


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
