"""A fine-tune at the door: its owner's alone until it is published, by the owner alone."""

from __future__ import annotations

from tests.platform_api.door import ALL, Door
from tests.platform_api.test_downloads import publish


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
