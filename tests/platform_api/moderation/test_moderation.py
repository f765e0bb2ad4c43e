"""What moderators do: take-downs, hiding, bans."""

from __future__ import annotations

import httpx
import pytest

from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import Role
from tests.platform_api.catalog.writing.test_model_routes import MODELS, listed, made, with_file
from tests.platform_api.door import ALL, Door
from tests.platform_api.http.test_problems import assert_problem


@pytest.fixture
def moderator(shared_door: Door) -> httpx.Client:
    shared_door.database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    return shared_door.client(shared_door.new_key(*ALL, account="keeper"))


def published(door: Door, client: httpx.Client, name: str, digit: str) -> int:
    """The id of a public model."""
    model_id = made(client, name)
    with_file(door, client, model_id, digit)
    assert client.post(f"{MODELS}/{model_id}/publish").status_code == 200
    return model_id


def test_a_take_down_says_why_until_a_moderator_restores_it(shared_door: Door, moderator: httpx.Client) -> None:
    owner, anybody = shared_door.client(), shared_door.client("")
    model_id = published(shared_door, owner, "claimed", "1")
    path = f"{MODELS}/{model_id}"
    assert assert_problem(owner.post(f"{path}/take-down", json={"reason": "mine"}), 403)["code"] == "not_allowed"
    assert set(assert_problem(moderator.post(f"{path}/take-down", json={"reason": " "}), 422)["errors"]) == {"reason"}
    taken = moderator.post(f"{path}/take-down", json={"reason": "copyright claim 12"})
    assert (taken.status_code, taken.json()["mode"]) == (200, "TakenDown")
    for client in (owner, anybody):
        assert "copyright claim 12" in str(assert_problem(client.get(path), 410)["detail"])
    assert_problem(owner.post(f"{path}/restore"), 410)
    assert_problem(moderator.post(f"{path}/take-down", json={"reason": "again"}), 409)
    assert_problem(moderator.patch(path, json={"mode": None}), 409)
    assert "mode" not in moderator.post(f"{path}/restore").json()
    assert_problem(moderator.post(f"{path}/restore"), 409)
    assert model_id in listed(shared_door)


def test_what_a_moderator_hides_a_moderator_shows_again(shared_door: Door, moderator: httpx.Client) -> None:
    owner = shared_door.client()
    model_id = published(shared_door, owner, "violating", "2")
    path = f"{MODELS}/{model_id}"
    assert moderator.post(f"{path}/unpublish").json()["status"] == "UnpublishedViolation"
    assert assert_problem(owner.post(f"{path}/publish"), 403)["code"] == "not_allowed"
    assert moderator.post(f"{path}/publish").json()["status"] == "Published"
    version = owner.get(path).json()["modelVersions"][0]["id"]
    assert moderator.post(f"/api/v1/model-versions/{version}/unpublish").json()["status"] == "UnpublishedViolation"
    assert_problem(owner.post(f"/api/v1/model-versions/{version}/publish"), 403)


def test_a_banned_account_is_out_until_the_ban_is_lifted(shared_door: Door, moderator: httpx.Client) -> None:
    account = shared_door.account("spammer")
    number = shared_door.database.run(accounts.account(account)).number
    spammer = shared_door.client(shared_door.new_key(*ALL, account="spammer"))
    model_id = published(shared_door, spammer, "spam", "3")
    path = f"/api/v1/users/{number}"
    assert_problem(spammer.post(f"{path}/ban", json={"reason": "x"}), 403)
    for nobody in (99999999, 10**25):
        assert_problem(moderator.post(f"/api/v1/users/{nobody}/ban", json={"reason": "x"}), 404)
    banned = moderator.post(f"{path}/ban", json={"reason": "sold spam"}).json()
    assert banned == {"id": number, "username": "spammer", "status": "banned", "banReason": "sold spam"}
    assert "sold spam" in str(assert_problem(spammer.get("/api/v1/me"), 403)["detail"])
    assert model_id not in listed(shared_door)
    assert moderator.post(f"{path}/unban").json()["status"] == "active"
    assert model_id in listed(shared_door)
    keeper = shared_door.database.run(accounts.users(name="keeper"))[0].number
    assert_problem(moderator.post(f"/api/v1/users/{keeper}/ban", json={"reason": "x"}), 403)
