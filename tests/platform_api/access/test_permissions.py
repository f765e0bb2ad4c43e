"""What is hidden returns no byte and no name at the doors that gave them once: stored files, images, old links."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from uuid import UUID

import httpx
import pytest

from storage.blobs.store import BlobStore
from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, images, models
from storage.postgres.connection import Query
from storage.records.accounts.accounts import Role
from storage.records.catalog.catalog import FileRole, Model, ModelVersion, NewFile, NewImage
from tests.platform_api.catalog.reading.shelf import put
from tests.platform_api.door import ALL, Door, photo, register_starter, serving
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.http.test_problems import assert_problem

SECRET = "folder/vae/secret-name.safetensors"


@dataclasses.dataclass
class Stage:
    """A door, and a public model of an account that is nobody else's."""

    door: Door
    owner: Door
    model: Model
    version: ModelVersion
    image: int

    def run(self, statement: str, **parameters: object) -> None:
        """Change rows as an operator or another process would."""
        self.door.database.run(Query(statement, parameters, len))

    def clients(self) -> dict[str, httpx.Client]:
        """One of everybody who may come."""
        self.door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
        names = {"other": "stranger", "owner": "painter", "moderator": "keeper"}
        keyed = {who: self.door.client(self.door.new_key(*ALL, account=name)) for who, name in names.items()}
        return {"anonymous": self.door.client(""), **keyed}

    def statuses(self, path: str) -> dict[str, int]:
        """The response that everybody gets there."""
        return {who: client.get(path).status_code for who, client in self.clients().items()}


@pytest.fixture(scope="module")
def doors(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with serving(tmp_path_factory.mktemp("hidden"), module_database_url, valkey_server) as door:
        register_starter(door.database)
        yield door


@pytest.fixture
def stage(doors: Door, request: pytest.FixtureRequest) -> Stage:
    owner = dataclasses.replace(doors, account_id=doors.account("painter"))
    doors.database.run(
        Query("update accounts set status = 'active', ban_reason = null where name = 'painter'", {}, len)
    )
    model, version = put(owner, f"model of {request.node.name}", request.node.name.encode() * 9)
    blob = BlobStore(doors.settings.blobs).put(b"secret" * 99)
    secret = NewFile(path=SECRET, role=FileRole.FOLDER, sha256=blob.sha256, size=blob.size)
    picture = BlobStore(doors.settings.blobs).put(photo(3))
    image = NewImage(
        sha256=picture.sha256, size=picture.size, media_type="image/png", width=64, height=48, blurhash="L0"
    )
    doors.database.run(catalog.add_files(version.id, [secret]))
    [number] = doors.database.run(catalog.add_images(version.id, owner.account_id, [image]))
    stage = Stage(doors, owner, model, version, number)
    stage.run("update version_files set visibility = 'Private' where path = %(path)s", path=SECRET)
    return stage


def test_a_private_file_is_its_owners_at_the_path_door_and_among_stored_files(stage: Stage) -> None:
    version = f"/api/v1/model-versions/{stage.version.id}"
    assert stage.statuses(f"{version}/files/{SECRET}") == {
        "anonymous": 404,
        "other": 404,
        "owner": 200,
        "moderator": 200,
    }
    named = {who: SECRET in client.get(version).text for who, client in stage.clients().items()}
    assert named == {"anonymous": False, "other": False, "owner": True, "moderator": True}


@pytest.mark.parametrize(
    ("change", "anonymous", "other"),
    [("require_auth = true", 401, 200), ("usage_control = 'Generation'", 404, 404)],
)
def test_every_door_to_bytes_asks_whether_they_are_given_out(
    stage: Stage, change: str, anonymous: int, other: int
) -> None:
    stage.run(f"update model_versions set {change} where id = %(id)s", id=stage.version.id)
    for path in (
        f"/api/v1/model-versions/{stage.version.id}/files/0.safetensors",
        f"/api/download/models/{stage.version.id}",
    ):
        seen = {who: 200 if status == 307 else status for who, status in stage.statuses(path).items()}
        assert seen == {"anonymous": anonymous, "other": other, "owner": 200, "moderator": 200}, path


def test_a_blocked_image_is_shown_to_its_owner_and_moderators_alone(stage: Stage) -> None:
    path = f"/api/v1/models/{stage.model.id}"
    [shown] = stage.clients()["anonymous"].get(path).json()["modelVersions"][0]["images"]
    unsigned = shown["url"].removeprefix(stage.door.url)
    assert httpx.get(shown["url"]).status_code == 200
    one = stage.door.database.run(images.of_version(stage.version.id, stage.image))
    stage.door.database.run(images.change(one, {"nsfw_level": 32}))
    assert set(stage.statuses(unsigned).values()) == {404}
    for who, client in stage.clients().items():
        pictures = client.get(path).json()["modelVersions"][0]["images"]
        detail = client.get(f"/api/v1/model-versions/{stage.version.id}").json()["images"]
        if who in ("anonymous", "other"):
            assert pictures == detail == [], who
            assert_problem(client.get(f"/api/v1/images/{stage.image}/stats"), 404)
            assert_problem(client.get(f"/api/v1/comments?entity=image&entityId={stage.image}"), 404)
            continue
        assert [picture["id"] for picture in pictures] == [stage.image]
        assert httpx.get(pictures[0]["url"]).status_code == 200, "the link was made for who asked"
    for query in ("browsingLevel=32", "browsingLevel=63", "nsfw=true"):
        found = stage.clients()["other"].get(f"/api/v1/images?{query}").json()["items"]
        assert stage.image not in [item["id"] for item in found], query


ENDS: dict[str, Callable[[Stage], None]] = {
    "unpublished": lambda stage: stage.run(
        "update models set status = 'Unpublished' where id = %(id)s", id=stage.model.id
    ),
    "private": lambda stage: stage.run(
        "update models set availability = 'Private' where id = %(id)s", id=stage.model.id
    ),
    "a private file": lambda stage: stage.run(
        "update version_files set visibility = 'Private' where version_id = %(id)s", id=stage.version.id
    ),
    "for generation only": lambda stage: stage.run(
        "update model_versions set usage_control = 'Generation' where id = %(id)s", id=stage.version.id
    ),
    "taken down": lambda stage: stage.door.database.run(models.take_down(stage.model, "a claim")) and None,
    "its owner banned": lambda stage: stage.run(
        "update accounts set status = 'banned', ban_reason = 'spam' where name = 'painter'"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_a_download_link_opens_what_its_reader_may_have_when_it_is_used(stage: Stage, end: str) -> None:
    links = {
        who: client.get(f"/api/download/models/{stage.version.id}").headers["location"]
        for who, client in stage.clients().items()
    }
    anybody = stage.door.client("")
    assert {anybody.get(link).status_code for link in links.values()} == {200}
    swapped = (
        links["other"].replace("?for=", "?for=9"),
        links["other"].partition("?for=")[0] + "?" + links["other"].split("&", 1)[1],
    )
    assert {anybody.get(link).status_code for link in swapped} == {403}, "whom it is for is signed"
    ENDS[end](stage)
    opened = {who for who, link in links.items() if anybody.get(link).status_code == 200}
    keeps = {"taken down": {"moderator"}, "its owner banned": {"moderator"}}
    assert opened == keeps.get(end, {"owner", "moderator"})


@pytest.mark.parametrize("end", ["unpublished", "private", "taken down", "its owner banned"])
def test_an_image_link_opens_what_its_reader_may_see_when_it_is_used(stage: Stage, end: str) -> None:
    stage.run("update models set status = 'Unpublished' where id = %(id)s", id=stage.model.id)
    path = f"/api/v1/models/{stage.model.id}"
    links = {
        who: client.get(path).json()["modelVersions"][0]["images"][0]["url"]
        for who, client in stage.clients().items()
        if who in ("owner", "moderator")
    }
    assert {httpx.get(link).status_code for link in links.values()} == {200}
    ENDS[end](stage)
    opened = {who for who, link in links.items() if httpx.get(link).status_code == 200}
    assert opened == ({"moderator"} if end in ("taken down", "its owner banned") else {"owner", "moderator"})


def test_a_link_to_an_image_of_a_job_ends_with_its_owners_ban_and_opens_no_other_bytes(stage: Stage) -> None:
    client = stage.clients()["owner"]
    made = publish(stage.door, client)
    [sample] = client.get(f"/api/v1/training-jobs/{made.job}/samples").json()["items"]
    assert httpx.get(sample["imageUrl"]).status_code == 200
    assert httpx.get(sample["imageUrl"].replace(made.job, str(UUID(int=1)))).status_code == 403
    stage.run("update accounts set status = 'banned', ban_reason = 'spam' where name = 'painter'")
    assert httpx.get(sample["imageUrl"]).status_code == 404


def test_what_a_banned_account_showed_with_anothers_model_goes_with_it(stage: Stage) -> None:
    other = stage.door.account("helper")
    stage.run("update images set account_id = %(id)s where id = %(image)s", id=other, image=stage.image)
    anybody, path = stage.door.client(""), f"/api/v1/models/{stage.model.id}"
    [shown] = anybody.get(path).json()["modelVersions"][0]["images"]
    stage.run("update accounts set status = 'banned', ban_reason = 'spam' where name = 'helper'")
    assert anybody.get(path).json()["modelVersions"][0]["images"] == [], "also where a response was kept"
    assert httpx.get(shown["url"]).status_code == 404
    assert stage.image not in [
        item["id"] for item in anybody.get(f"/api/v1/images?imageId={stage.image}").json()["items"]
    ]
    stage.run("update accounts set status = 'active', ban_reason = null where name = 'helper'")
    assert len(anybody.get(path).json()["modelVersions"][0]["images"]) == 1
