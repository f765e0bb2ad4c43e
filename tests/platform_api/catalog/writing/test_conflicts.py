"""What Postgres refuses for a conflict is done again, and who asked does not hear of it."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from storage.postgres.accounts import accounts
from storage.postgres.catalog import uploads
from storage.postgres.connection import Query, Script
from storage.postgres.jobs import data_sets
from storage.postgres.metrics import activity
from storage.postgres.notifications import endpoints, sendings
from tests.platform_api.door import Door
from tests.platform_api.sending import a_sender, weights
from tests.storage.makers import a_data_set

CONFLICT = "do $$ begin raise exception 'another was faster' using errcode = '40001'; end $$"


@pytest.fixture
def conflicting(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], list[str]]:
    """Has a script meet a conflict the first time; returns a list with an entry for each time that it is run."""

    def conflicts(module: ModuleType, name: str) -> list[str]:
        whole, runs = getattr(module, name), list[str]()

        def conflicts_once(*arguments: Any, **options: Any) -> Script[Any]:
            result = yield from whole(*arguments, **options)
            runs.append(name)
            if len(runs) == 1:
                yield Query(CONFLICT, {}, len)
            return result

        monkeypatch.setattr(module, name, conflicts_once)
        return runs

    return conflicts


def test_a_key_is_made_and_revoked(shared_door: Door, conflicting: Callable[[ModuleType, str], list[str]]) -> None:
    making, revoking = conflicting(accounts, "make_key"), conflicting(accounts, "revoke_key")
    owner = shared_door.client()
    made = owner.post("/api/v1/keys", json={"name": "laptop", "scopes": ["models:read"]})
    assert (made.status_code, len(making)) == (201, 2), made.text
    revoked = owner.delete(f"/api/v1/keys/{made.json()['id']}")
    assert (revoked.status_code, len(revoking)) == (204, 2), revoked.text
    assert shared_door.client(made.json()["key"]).get("/api/v1/me").status_code == 401


def test_an_address_is_registered_and_tried_out(
    shared_door: Door, conflicting: Callable[[ModuleType, str], list[str]]
) -> None:
    owner, channels = shared_door.client(), "/api/v1/notifications/channels"
    assert owner.put(f"{channels}/webhook", json={"url": "https://example.com/hook"}).status_code == 200
    registering, rotating, asking = (
        conflicting(endpoints, "put"),
        conflicting(endpoints, "rotate"),
        conflicting(sendings, "add"),
    )
    chat = {"url": f"https://discord.com/api/webhooks/1/{'t' * 60}"}
    assert owner.put(f"{channels}/chat", json=chat).status_code == 200
    assert owner.post(f"{channels}/webhook/secret").status_code == 200
    assert owner.post(f"{channels}/webhook/test").status_code == 202
    assert (len(registering), len(rotating), len(asking)) == (2, 2, 2)


def test_acts_are_counted(shared_door: Door, conflicting: Callable[[ModuleType, str], list[str]]) -> None:
    counting = conflicting(activity, "ingest")
    act = {"key": "k", "kind": "view", "entity": "model", "entityId": 1, "occurredAt": "2026-01-01T00:00:00Z"}
    counted = shared_door.client().post("/api/v1/activity", json={"activities": [act]})
    assert (counted.status_code, len(counting) >= 2) == (202, True), counted.text  # downloads are counted meanwhile


def test_a_data_set_is_deleted(shared_door: Door, conflicting: Callable[[ModuleType, str], list[str]]) -> None:
    deleting = conflicting(data_sets, "delete")
    path = f"/api/v1/data-sets/{a_data_set(shared_door.database, shared_door.account_id)}"
    deleted = shared_door.client().delete(path)
    assert (deleted.status_code, len(deleting)) == (204, 2), deleted.text
    assert shared_door.client().get(path).status_code == 404


def test_an_upload_is_finished(shared_door: Door, conflicting: Callable[[ModuleType, str], list[str]]) -> None:
    sender, content, finishing = a_sender(shared_door), weights(), conflicting(uploads, "finish")
    path = sender.begin(len(content))
    sent = sender.send(path, 0, content)
    assert (sent.status_code, len(finishing)) == (204, 2), sent.text
    assert [name for name, _ in sender.files()] == ["a.safetensors"]
