"""A fine-tune at the door: its owner's alone until it is published, by the owner alone."""

from __future__ import annotations

import httpx
import pytest

from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import Role
from tests.platform_api.door import ALL, Door
from tests.platform_api.http.test_downloads import publish
from tests.platform_api.http.test_problems import assert_problem
from tests.storage.makers import a_model, a_published_model


@pytest.fixture
def moderator(shared_door: Door) -> httpx.Client:
    shared_door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    return shared_door.client(shared_door.new_key(*ALL, account="keeper"))


def test_a_request_that_says_nothing_makes_a_private_model_that_its_owner_publishes(shared_door: Door) -> None:
    owner, nobody = shared_door.client(), shared_door.client("")
    neighbour = shared_door.client(shared_door.new_key(*ALL, account="neighbour"))
    made = publish(shared_door, owner, availability="Private")
    assert owner.get(f"/api/v1/training-jobs/{made.job}").json()["request"]["availability"] == "Private"
    path = f"/api/v1/models/{made.model}"
    assert owner.get(path).json()["availability"] == "Private"
    assert owner.get(path).json()["publishedAt"] is None
    for stranger in (nobody, neighbour):
        assert stranger.get(path).status_code == 404
        assert stranger.get(made.path).status_code == 404
    assert neighbour.post(f"{path}/publish").status_code == 404
    assert nobody.post(f"{path}/publish").status_code == 401
    published = owner.post(f"{path}/publish").json()
    assert (published["availability"], published["publishedAt"] is not None) == ("Public", True)
    for stranger in (nobody, neighbour):
        assert stranger.get(path).json()["modelVersions"][0]["availability"] == "Public"
        assert stranger.get(made.path).status_code == 200
    assert owner.post(f"{path}/publish").json()["publishedAt"] == published["publishedAt"]


def test_a_private_model_can_be_published_at_a_date(shared_door: Door) -> None:
    owner, nobody = shared_door.client(), shared_door.client("")
    made = publish(shared_door, owner, availability="Private")
    path, later = f"/api/v1/models/{made.model}", {"at": "2027-03-01T09:00:00Z"}
    assert owner.post(f"{path}/publish", json=later).status_code == 200
    assert nobody.get(path).status_code == 404
    assert owner.post(f"{path}/publish").status_code == 200
    assert nobody.get(path).status_code == 200
    assert owner.post(f"{path}/publish", json=later).status_code == 409


def test_a_moderator_does_not_open_what_is_private(shared_door: Door, moderator: httpx.Client) -> None:
    owner, nobody = shared_door.client(), shared_door.client("")
    made = publish(shared_door, owner, availability="Private")
    for path in (f"/api/v1/models/{made.model}", f"/api/v1/model-versions/{made.version}"):
        for availability in ("Public", "Unsearchable"):
            refused = moderator.patch(path, json={"availability": availability})
            assert assert_problem(refused, 403)["code"] == "not_allowed"
        assert moderator.patch(path, json={"availability": "Private", "description": "rated"}).status_code == 200
        assert nobody.get(path).status_code == 404
        opened = owner.patch(path, json={"availability": "Public"})
        assert (opened.status_code, opened.json()["availability"]) == (200, "Public")
    assert moderator.patch(f"/api/v1/models/{made.model}", json={"availability": "Unsearchable"}).status_code == 200


def test_nobody_draws_with_a_model_that_was_taken_down(shared_door: Door, moderator: httpx.Client) -> None:
    owner = shared_door.client()
    made = publish(shared_door, owner, availability="Public")
    wanted = {"model": made.version, "prompt": "a photo of a sks mug"}
    drawing = owner.post("/api/v1/generations", json=wanted).json()["links"]["self"]
    assert owner.post(f"{drawing}/cancel").status_code < 300
    assert moderator.post(f"/api/v1/models/{made.model}/take-down", json={"reason": "claim 12"}).status_code == 200
    for path, body in (("/api/v1/generations", wanted), (f"{drawing}/retry", None)):
        assert "claim 12" in str(assert_problem(owner.post(path, json=body), 410)["detail"])
    assert moderator.post(f"/api/v1/models/{made.model}/restore").status_code == 200
    for path, body in (("/api/v1/generations", wanted), (f"{drawing}/retry", None)):
        assert owner.post(path, json=body).status_code == 202


def test_the_models_of_an_account_are_its_list_alone_page_by_page(door: Door, moderator_of: httpx.Client) -> None:
    owner, neighbour = door.client(), door.client(door.new_key(*ALL, account="neighbour"))
    database, mine = door.database, door.account()
    public = a_published_model(database, mine, "public")
    draft = a_model(database, mine, "draft")
    private = a_published_model(database, mine, "private", availability="Private")
    a_published_model(database, door.account("neighbour"), "theirs")
    first = owner.get("/api/v1/me/models?limit=2").json()
    assert [one["name"] for one in first["items"]] == ["private", "draft"]
    assert [len(one["modelVersions"]) for one in first["items"]] == [1, 0]
    rest = owner.get(first["metadata"]["nextPage"]).json()
    assert ([one["id"] for one in rest["items"]], rest["metadata"]["nextCursor"]) == ([public.id], None)
    assert [one["name"] for one in neighbour.get("/api/v1/me/models").json()["items"]] == ["theirs"]
    assert moderator_of.get("/api/v1/me/models").json()["items"] == []
    assert owner.post(f"/api/v1/models/{private.id}/unpublish").status_code == 200
    assert owner.delete(f"/api/v1/models/{draft.id}").status_code == 204
    taken = moderator_of.post(f"/api/v1/models/{public.id}/take-down", json={"reason": "not yours"})
    assert taken.status_code == 200, taken.text
    assert [one["id"] for one in owner.get("/api/v1/me/models").json()["items"]] == [private.id]
    assert_problem(door.client("").get("/api/v1/me/models"), 401)
    assert_problem(owner.get("/api/v1/me/models?cursor=nonsense"), 422)


@pytest.fixture
def moderator_of(door: Door) -> httpx.Client:
    door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    return door.client(door.new_key(*ALL, account="keeper"))
