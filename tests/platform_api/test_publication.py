"""A fine-tune at the door: its owner's alone until it is published, by the owner alone."""

from __future__ import annotations

import httpx
import pytest

from storage.postgres import access
from storage.records.access import Role
from tests.platform_api.door import ALL, Door
from tests.platform_api.test_downloads import publish
from tests.platform_api.test_problems import assert_problem


@pytest.fixture
def moderator(shared_door: Door) -> httpx.Client:
    shared_door.database.run(access.ensure_account("keeper", Role.MODERATOR))
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
    wanted = {"modelVersionId": made.version, "prompt": "a photo of a sks mug"}
    drawing = owner.post("/api/v1/generations", json=wanted).json()["links"]["self"]
    assert owner.post(f"{drawing}/cancel").status_code < 300
    assert moderator.post(f"/api/v1/models/{made.model}/take-down", json={"reason": "claim 12"}).status_code == 200
    for path, body in (("/api/v1/generations", wanted), (f"{drawing}/retry", None)):
        assert "claim 12" in str(assert_problem(owner.post(path, json=body), 410)["detail"])
    assert moderator.post(f"/api/v1/models/{made.model}/restore").status_code == 200
    for path, body in (("/api/v1/generations", wanted), (f"{drawing}/retry", None)):
        assert owner.post(path, json=body).status_code == 202
