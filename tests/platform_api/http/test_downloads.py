"""Bytes out: whole, in ranges, named by their hash, never changed on the way."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest

from platform_api.http.downloads import Download, Span, asked_range, attachment
from platform_api.http.problems import RangeNotSatisfiable
from storage.blobs.store import BlobStore
from storage.postgres.connection import Query
from storage.postgres.jobs import job_files, jobs, publication
from storage.records.catalog.catalog import FileRole, NewFile, TrainedVersion
from storage.records.catalog.vocabulary import Availability
from storage.records.jobs.jobs import JobFileRole
from storage.signing import job_image_link
from tests.platform_api.door import ALL, Door, upload

CONTENT = bytes(range(256)) * 3000
WANTED = Download("a" * 64, 1000, "x.bin", "application/octet-stream")


@dataclass
class Published:
    """A model version with one file, and the job that made it."""

    job: str
    version: int
    model: int
    path: str
    sha256: str


def publish(
    door: Door, client: httpx.Client, name: str = "unet/weights.safetensors", availability: str = "Public"
) -> Published:
    """A succeeded job with a published version to draw with and a file of its own, straight through the stores."""
    submitted = client.post("/api/v1/training-jobs", json={"dataSetId": upload(client, 2)["id"], "classWord": "mug"})
    job = UUID(submitted.json()["id"])
    blob = BlobStore(door.settings.blobs).put(CONTENT)
    door.database.run(jobs.claim(job, 1, None))
    facts = {"role": JobFileRole.SAMPLE, "sha256": blob.sha256, "size": blob.size, "media_type": "image/png"}
    door.database.run(job_files.put_file(job, 1, name="samples/step 3.png", step=3, **facts))
    recipe = door.database.run(jobs.get(job)).request
    version = door.database.run(
        publication.publish(
            job,
            1,
            TrainedVersion(
                model_name=f"sks mug {job}",
                base_model="starter",
                trained_words=("sks mug",),
                recipe=recipe,
                evaluation={"subject_fidelity": 0.9},
                availability=Availability(availability),
                files=(
                    NewFile(path=name, role=FileRole.WEIGHTS, sha256=blob.sha256, size=blob.size),
                    NewFile(path="model_index.json", role=FileRole.FOLDER, sha256=blob.sha256, size=blob.size),
                ),
            ),
        )
    )
    return Published(
        str(job), version.id, version.model_id, f"/api/v1/model-versions/{version.id}/files/{name}", blob.sha256
    )


@pytest.fixture(scope="module")
def published(shared_door: Door) -> Published:
    """One published version for the module, which only its owner sees."""
    return publish(shared_door, shared_door.client(), availability="Private")


def test_a_file_comes_whole_with_its_hash_as_etag(shared_door: Door, published: Published):
    response = shared_door.client().get(published.path)
    assert response.status_code == 200
    assert hashlib.sha256(response.content).hexdigest() == published.sha256
    assert response.headers["etag"] == f'"{published.sha256}"'
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-disposition"].startswith('attachment; filename="weights.safetensors"')
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("header", "status", "first", "last"),
    [
        ("bytes=0-0", 206, 0, 0),
        ("bytes=10-19", 206, 10, 19),
        ("bytes=767990-", 206, 767990, 767999),
        ("bytes=-5", 206, 767995, 767999),
        ("bytes=-99999999", 206, 0, 767999),
        ("bytes=5-99999999999", 206, 5, 767999),
        ("bytes=0-1,5-6", 200, 0, 767999),
        ("bytes=9-3", 200, 0, 767999),
        ("bytes=x-y", 200, 0, 767999),
        ("lines=1-2", 200, 0, 767999),
        ("bytes=" + "9" * 400 + "-", 200, 0, 767999),
    ],
)
def test_ranges(shared_door: Door, published: Published, header: str, status: int, first: int, last: int):
    response = shared_door.client().get(published.path, headers={"Range": header})
    assert response.status_code == status
    assert response.content == CONTENT[first : last + 1]
    if status == 206:
        assert response.headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"


@pytest.mark.parametrize("header", ["bytes=768000-", "bytes=999999999-9999999999", "bytes=-0"])
def test_a_range_behind_the_end_is_refused_with_the_size(shared_door: Door, published: Published, header: str):
    response = shared_door.client().get(published.path, headers={"Range": header})
    assert response.status_code == 416
    assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert response.json()["code"] == "range_not_satisfiable"


def test_a_download_goes_on_only_for_the_same_version(shared_door: Door, published: Published):
    client = shared_door.client()
    same = client.get(published.path, headers={"Range": "bytes=5-", "If-Range": f'"{published.sha256}"'})
    other = client.get(published.path, headers={"Range": "bytes=5-", "If-Range": '"else"'})
    assert (same.status_code, other.status_code) == (206, 200)


def test_head_says_what_get_would(shared_door: Door, published: Published):
    client = shared_door.client()
    head, got = client.head(published.path), client.get(published.path)
    names = ("etag", "content-length", "content-type", "content-disposition", "accept-ranges")
    assert head.content == b""
    assert [head.headers[name] for name in names] == [got.headers[name] for name in names]


def test_a_copy_that_is_still_good_is_not_sent_again(shared_door: Door, published: Published):
    response = shared_door.client().get(published.path, headers={"If-None-Match": f'W/"x", "{published.sha256}"'})
    assert (response.status_code, response.content) == (304, b"")


def test_the_catalogue_shows_versions_files_and_hashes(shared_door: Door, published: Published):
    client = shared_door.client()
    model = client.get(f"/api/v1/models/{published.model}").json()
    version = client.get(f"/api/v1/model-versions/{published.version}").json()
    assert [shown["id"] for shown in model["modelVersions"]] == [version["id"]]
    assert version["files"][0]["hashes"]["SHA256"] == published.sha256.upper()
    assert version["storedFiles"][0]["url"] == published.path
    assert version["trainedWords"] == ["sks mug"]
    assert version["evaluation"] == {"subjectFidelity": 0.9}
    assert client.get("/api/v1/models").json()["items"] == []


def test_a_jobs_samples_have_addresses_with_and_without_a_key(shared_door: Door, published: Published):
    client = shared_door.client()
    (sample,) = client.get(f"/api/v1/training-jobs/{published.job}/samples").json()["items"]
    assert client.get(sample["url"]).content == CONTENT
    signed = sample["imageUrl"].replace(shared_door.settings.api.public_url, "")
    shown = shared_door.client("").get(signed)
    assert shown.content == CONTENT
    assert shown.headers["content-disposition"] == "inline"
    # Its first sign: of the last one some bits say nothing, so that another may stand for the same bytes.
    address, signature = signed.split("signature=")
    other = f"{address}signature={'0' if signature[0] != '0' else '1'}{signature[1:]}"
    for forged in (other, signed.replace("expires=", "expires=9")):
        response = shared_door.client("").get(forged)
        assert (response.status_code, response.json()["code"]) == (403, "link_refused")


def test_another_owners_things_are_not_there(shared_door: Door, published: Published):
    stranger = shared_door.client(shared_door.new_key(*ALL, account="stranger"))
    data_set = shared_door.client().get("/api/v1/data-sets").json()["items"][0]["id"]
    paths = (
        published.path,
        f"/api/v1/models/{published.model}",
        f"/api/v1/model-versions/{published.version}",
        f"/api/v1/training-jobs/{published.job}",
        f"/api/v1/training-jobs/{published.job}/files",
        f"/api/v1/training-jobs/{published.job}/files/samples/step%203.png",
        f"/api/v1/data-sets/{data_set}",
    )
    assert {stranger.get(path).status_code for path in paths} == {404}
    assert {shared_door.client().get(path).status_code for path in paths} == {200}
    for noun in ("training-jobs", "data-sets"):
        assert stranger.get(f"/api/v1/{noun}").json()["items"] == []
    for verb in ("cancel", "retry"):
        assert stranger.post(f"/api/v1/training-jobs/{published.job}/{verb}").status_code == 404
    wanted = {"model": published.version, "prompt": "a photo of a sks mug"}
    refused = stranger.post("/api/v1/generations", json=wanted)
    assert (refused.status_code, list(refused.json()["errors"])) == (422, ["model"])
    assert stranger.delete(f"/api/v1/data-sets/{data_set}").status_code == 404


def test_a_generation_is_a_job_of_its_own_kind(shared_door: Door, published: Published):
    client = shared_door.client()
    response = client.post("/api/v1/generations", json={"model": published.version, "prompt": "a sks mug", "count": 2})
    assert response.status_code == 202
    job = response.json()
    shown = client.get(job["links"]["self"]).json()
    assert (shown["kind"], shown["request"]["count"]) == ("generation", 2)
    assert client.get(f"/api/v1/training-jobs/{job['id']}").status_code == 404


def test_changed_bytes_never_arrive_whole(door: Door):
    client = door.client()
    published = publish(door, client)
    blob = door.settings.data_folder / "blobs" / published.sha256[:2] / published.sha256
    blob.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(httpx.RemoteProtocolError):
        client.get(published.path)
    blob.unlink()
    response = client.get(published.path)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")


def test_spans_of_an_empty_file_cannot_be_had():
    empty = Download("a" * 64, 0, "x", "text/plain")
    for header in ("bytes=0-", "bytes=-5", "bytes=0-0"):
        with pytest.raises(RangeNotSatisfiable):
            asked_range(header, None, empty)
    assert asked_range("bytes=-1", None, WANTED) == Span(999, 999)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a/b c.bin", 'attachment; filename="b c.bin"'),
        ('q"\r\nX: y', "attachment; filename=\"q___X_ y\"; filename*=UTF-8''q%22%0D%0AX%3A%20y"),
        ("Straße.png", "attachment; filename=\"Stra_e.png\"; filename*=UTF-8''Stra%C3%9Fe.png"),
    ],
)
def test_file_names_cannot_break_out_of_the_header(name: str, expected: str):
    assert attachment(name) == expected


GRID = """
insert into job_files (job_id, name, role, sha256, size, media_type)
values (%(job)s, 'grid.png', 'grid', %(sha256)s, %(size)s, 'image/png') returning name
"""


def test_a_signed_link_ends_with_the_photos_and_the_model_that_it_shows(shared_door: Door) -> None:
    client, database, keys = shared_door.client(), shared_door.database, shared_door.settings.api.signing_keys
    published = publish(shared_door, client)
    job, grid = UUID(published.job), BlobStore(shared_door.settings.blobs).put(b"photos beside samples")
    database.run(Query(GRID, {"job": job, "sha256": grid.sha256, "size": grid.size}, len))
    links = [job_image_link(job, sha256, int(time.time()) + 900, keys) for sha256 in (grid.sha256, published.sha256)]

    def shown() -> list[int]:
        return [shared_door.client("").get(link).status_code for link in links]

    assert shown() == [200, 200]
    data_set = database.run(jobs.get(job)).data_set_id
    assert client.delete(f"/api/v1/data-sets/{data_set}").status_code == 204
    assert shown() == [404, 200]
    # One that was made, or stayed, when its photos had gone.
    database.run(Query(GRID, {"job": job, "sha256": grid.sha256, "size": grid.size}, len))
    assert shown() == [410, 200]
    assert client.delete(f"/api/v1/models/{published.model}").is_success
    assert shown() == [410, 410]
