"""Images of versions: uploaded in any way, made harmless, rated, described, deleted."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import httpx
import pytest
from PIL import Image

from storage.blobs.blurhashes import blurhash_of
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Role
from storage.settings import QuotaSettings, UploadSettings
from tests.platform_api.catalog.writing.test_model_routes import MODELS, VERSIONS, made, with_file
from tests.platform_api.door import ALL, Door, form, listening, photo, serving
from tests.platform_api.http.test_problems import assert_problem
from tests.storage.blobs.test_images import frames, png_header

LIMITS = UploadSettings(max_images=6, max_image_bytes=200_000, max_pixels=1_000_000)
META = {"prompt": "a lantern\nat night", "steps": 25, "cfgScale": 3.5, "seed": 7, "Size": "64x48", "Model": "Lantern"}


@pytest.fixture(scope="module")
def gallery(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """A door with small limits."""
    with serving(tmp_path_factory.mktemp("gallery"), module_database_url, valkey_server, uploads=LIMITS) as door:
        yield door


def published(door: Door, name: str, digit: str) -> str:
    """The address of a public version's images."""
    owner = door.client()
    model_id = made(owner, name)
    version_id = with_file(door, owner, model_id, digit)
    assert owner.post(f"{MODELS}/{model_id}/publish").status_code == 200
    return f"{VERSIONS}/{version_id}/images"


def rows(door: Door) -> int:
    """How many images there ever were."""
    return door.database.run(Query("select count(*) as n from images", {}, lambda found: found[0]["n"]))


def test_an_uploaded_image_is_made_harmless_listed_and_shown(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "pictured", "1")
    spy = Image.Exif()
    spy[0x010E] = "where I live"
    response = owner.post(
        f"{path}?nsfwLevel=2",
        files=form(("a.jpg", photo(1, (64, 48), "JPEG", exif=spy))),
        data={"meta": json.dumps(META)},
    )
    assert response.status_code == 201, response.text
    image = response.json()
    assert (image["width"], image["height"], image["nsfwLevel"], image["meta"]) == (64, 48, 2, META)
    shown = httpx.get(response.headers["location"])
    assert (shown.status_code, shown.headers["content-type"]) == (200, "image/png")
    assert b"where I live" not in shown.content
    assert image["hash"] == blurhash_of(Image.open(io.BytesIO(shown.content)))
    version_id = int(path.split("/")[4])
    listed = (
        gallery.client("").get(f"/api/v1/images?modelVersionId={version_id}&nsfw=Soft&withMeta=true").json()["items"]
    )
    assert [(item["id"], item["meta"], item["hash"]) for item in listed] == [(image["id"], META, image["hash"])]
    assert gallery.client("").get(f"{VERSIONS}/{version_id}").json()["images"] == [image]
    bare = owner.post(path, content=photo(2, kind="WEBP"), headers={"Content-Type": "image/webp"}).json()
    assert (bare["nsfwLevel"], bare["meta"]) == (1, None)
    assert [item["id"] for item in owner.get(f"{VERSIONS}/{version_id}").json()["images"]] == [image["id"], bare["id"]]


REFUSED: dict[str, tuple[str, bytes, int, str]] = {
    "no kind": ("", photo(1), 415, "image/png, image/jpeg or image/webp"),
    "a zip": ("application/zip", b"PK", 415, "image/png"),
    "text": ("image/png", b"hello there, I am text" * 9, 422, "is not a PNG"),
    "nothing": ("image/png", b"", 422, "is not a PNG"),
    "half of one": ("image/png", photo(2)[:4000], 422, "is damaged"),
    "a bomb": ("image/png", png_header(20_000, 20_000), 422, "pixels"),
    "an animation": ("image/webp", frames("WEBP"), 422, "animated WebP"),
    "far too much": ("image/png", b"\x89PNG" + b"0" * 500_000, 413, "bytes"),
    "no form": ("multipart/form-data; boundary=b", b"nonsense", 400, "form"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_image_is_refused_and_leaves_nothing(gallery: Door, name: str) -> None:
    kind, content, status, said = REFUSED[name]
    path = published(gallery, f"refuses {name}", "2")
    before = rows(gallery), sorted(gallery.blobs)
    response = gallery.client().post(path, content=content, headers={"Content-Type": kind})
    assert said in str(assert_problem(response, status)["detail"])
    assert (rows(gallery), sorted(gallery.blobs), gallery.staging) == (*before, [])


def test_a_form_that_says_something_wrong_is_refused_and_leaves_nothing(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "refuses forms", "3")
    before, one = (rows(gallery), sorted(gallery.blobs)), form(("a.png", photo(1)))
    deep: object = []
    for _ in range(9):
        deep = [deep]
    for files, data, status, field in (
        ([], {"meta": "{}"}, 422, "files"),
        (one, {"meta": "[]"}, 422, "meta"),
        (one, {"meta": "{"}, 422, "meta"),
        (one, {"meta": '{"a": "\\u0000"}'}, 422, "meta"),
        (one, {"meta": '{"a": ' + "9" * 40 + "}"}, 422, "meta"),
        (one, {"meta": json.dumps({"a": deep})}, 422, "meta"),
        (one, {"meta": json.dumps({"a": "x" * 20_000})}, 422, "meta"),
        (one, {"meta": '{}, "nsfwLevel": 32'}, 422, "meta"),
        (one, {"meta": "[" * 50_000}, 422, "meta"),
        (one, {"title": "x"}, 422, "title"),
        ([*one, *one], {}, 422, None),
    ):
        response = owner.post(path, files=[*files, *((name, (None, text)) for name, text in data.items())])
        errors = assert_problem(response, status)["errors"]
        assert field is None or set(errors) == {field}, (data, errors)
    for level in ("3", "0", "x"):
        response = owner.post(f"{path}?nsfwLevel={level}", files=one)
        assert set(assert_problem(response, 422)["errors"]) == {"nsfwLevel"}
    assert (rows(gallery), sorted(gallery.blobs), gallery.staging) == (*before, [])


def test_an_image_is_rated_described_and_deleted(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "rated", "4")
    image = owner.post(path, files=form(("a.png", photo(1)))).json()
    one, model_id = f"{path}/{image['id']}", owner.get(path.removesuffix("/images")).json()["modelId"]
    changed = owner.patch(one, json={"nsfwLevel": 8, "meta": META}).json()
    assert changed == {**image, "nsfwLevel": 8, "meta": META, "hasMeta": True, "hasPositivePrompt": True}
    assert owner.get(f"{MODELS}/{model_id}").json()["nsfwLevel"] == 8
    assert owner.patch(one, json={"meta": None}).json()["nsfwLevel"] == 8
    for wrong in ({"nsfwLevel": 3}, {"meta": []}, {"meta": {"a": 2**60}}, {"width": 9}):
        assert set(assert_problem(owner.patch(one, json=wrong), 422)["errors"]) == set(wrong)
    assert owner.delete(one).status_code == 204
    assert_problem(httpx.get(image["url"]), 410)
    for method in ("PATCH", "DELETE"):
        assert_problem(owner.request(method, one, json={} if method == "PATCH" else None), 410)
    assert_problem(owner.delete(f"{path}/99999999"), 404)
    assert owner.get(f"{VERSIONS}/{path.split('/')[4]}").json()["images"] == []


def test_what_a_moderator_blocks_its_owner_does_not_show_again(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "blocked", "5")
    gallery.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    moderator = gallery.client(gallery.new_key(*ALL, account="keeper"))
    one = f"{path}/{owner.post(path, files=form(('a.png', photo(1)))).json()['id']}"
    assert_problem(owner.patch(one, json={"nsfwLevel": 32}), 403)
    assert_problem(owner.post(f"{path}?nsfwLevel=32", files=form(("a.png", photo(1)))), 403)
    assert moderator.patch(one, json={"nsfwLevel": 32}).json()["nsfwLevel"] == 32
    assert_problem(owner.patch(one, json={"nsfwLevel": 1}), 403)
    assert owner.patch(one, json={"meta": META}).json()["nsfwLevel"] == 32


def test_others_add_no_images_and_a_version_has_only_so_many(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "full", "6")
    stranger = gallery.client(gallery.new_key(*ALL, account="stranger"))
    assert_problem(stranger.post(path, files=form(("a.png", photo(1)))), 403)
    assert_problem(stranger.post(f"{VERSIONS}/99999999/images", files=form(("a.png", photo(1)))), 404)
    for number in range(LIMITS.max_images):
        assert owner.post(path, files=form(("a.png", photo(number)))).status_code == 201
    before = sorted(gallery.blobs)
    assert "6 images" in str(assert_problem(owner.post(path, files=form(("a.png", photo(9)))), 409)["detail"])
    assert sorted(gallery.blobs) == before
    assert_problem(stranger.delete(f"{path}/1"), 403)


def test_a_repeat_has_its_response_where_there_is_no_room_for_another_image(gallery: Door) -> None:
    owner, path, key = gallery.client(), published(gallery, "no room", "8"), {"Idempotency-Key": "the first"}
    first = owner.post(path, files=form(("a.png", photo(1))), headers=key)
    for number in range(1, LIMITS.max_images):
        assert owner.post(path, files=form(("a.png", photo(number)))).status_code == 201
    full = QuotaSettings(account_bytes=1, unfinished_bytes=1, unfinished_uploads=1, free_space_bytes=0)
    for code, quotas in (("quota_exceeded", full), ("free_space_low", QuotaSettings(free_space_bytes=2**62))):
        settings = gallery.settings.model_copy(update={"quotas": quotas}, deep=True)
        with listening(settings) as url, httpx.Client(base_url=url, headers=owner.headers) as client:
            again = client.post(path, files=form(("a.png", photo(1))), headers=key)
            assert (again.status_code, again.json()["id"]) == (201, first.json()["id"]), (code, again.text)
            before = sorted(gallery.blobs)
            other = client.post(path, files=form(("a.png", photo(77))), headers=key)
            assert assert_problem(other, 422)["code"] == "idempotency_key_reused"
            assert sorted(gallery.blobs) == before
            gone = published(gallery, f"with room but {code}", "9")
            refused = client.post(gone, files=form(("a.png", photo(1))))
            assert refused.json()["code"] == code


def test_a_repeated_upload_is_one_image(gallery: Door) -> None:
    owner, path = gallery.client(), published(gallery, "repeated", "7")
    key = {"Idempotency-Key": "picture"}
    responses = [owner.post(path, files=form(("a.png", photo(1))), headers=key) for _ in range(2)]
    assert responses[0].content == responses[1].content
    assert len(owner.get(path.removesuffix("/images")).json()["images"]) == 1
    other = owner.post(path, files=form(("a.png", photo(2))), headers=key)
    assert assert_problem(other, 422)["code"] == "idempotency_key_reused"
