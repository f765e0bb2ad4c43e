"""Acts from outside, and those that the door counts itself."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from platform_api.metrics import activity_buffer
from storage.postgres.accounts import accounts
from storage.postgres.connection import AsyncDatabase, Query
from storage.postgres.social import social
from storage.records.accounts.accounts import Role
from storage.records.metrics.activity import Counted, Metric
from storage.records.policy.viewers import Viewer
from storage.records.social.social import Subject
from storage.settings import PostgresSettings
from tests.platform_api.door import ALL, Door
from tests.platform_api.http.test_downloads import publish
from tests.storage.makers import a_model, a_published_model, a_version, an_image


def acts_of(door: Door, entity: str, entity_id: int) -> dict[str, int]:
    """What is counted of an entity, by its metrics."""
    statement = (
        "select metric::text, sum(amount)::int as amount from activity "
        "where entity = %(entity)s and entity_id = %(id)s group by metric"
    )
    rows = door.database.run(Query(statement, {"entity": entity, "id": entity_id}, list))
    return {row["metric"]: row["amount"] for row in rows}


def an_act(key: str, model_id: int, **fields: object) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat()
    return {"key": key, "kind": "view", "entity": "model", "entityId": model_id, "occurredAt": now, **fields}


def send(client: httpx.Client, *acts: dict[str, Any]) -> httpx.Response:
    return client.post("/api/v1/activity", json={"activities": acts})


def test_a_call_counts_a_thousand_acts_and_says_what_it_rejected(shared_door: Door) -> None:
    model = a_published_model(shared_door.database, shared_door.account_id, "viewed")
    client = shared_door.client()
    late = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    acts = [an_act(f"view-{n}", model.id) for n in range(997)]
    acts += [an_act("tip", model.id, kind="tip", amount=50), an_act("late", model.id, occurredAt=late)]
    acts.append(an_act("nothing", 999999, entity="image"))
    response = send(client, *acts)
    assert response.status_code == 202
    body = response.json()
    assert (body["accepted"], body["repeated"], body["rejected"]) == (998, 0, 2)
    assert {item["key"]: item["reason"] for item in body["refusals"]} == {"late": "too_old", "nothing": "no_entity"}
    assert acts_of(shared_door, "model", model.id) == {"view": 997, "tip": 50}
    again = send(client, *acts).json()
    assert (again["accepted"], again["repeated"], again["rejected"]) == (0, 998, 2)
    assert acts_of(shared_door, "model", model.id) == {"view": 997, "tip": 50}
    mine = client.get("/api/v1/activity/rejected?limit=1").json()
    assert [item["key"] for item in mine["items"]] in (["late"], ["nothing"])
    assert len(client.get(mine["metadata"]["nextPage"]).json()["items"]) == 1
    other = shared_door.client(shared_door.new_key(*ALL, account="another caller"))
    assert other.get("/api/v1/activity/rejected").json()["items"] == []
    assert send(other, *acts[:2]).json()["accepted"] == 2  # keys belong to their caller


def test_what_the_caller_does_not_see_is_rejected_as_what_is_not_there(door: Door) -> None:
    owner, draft = door.account_id, a_model(door.database, door.account_id, "draft")
    version = a_version(door.database, draft)
    image = an_image(door.database, draft)
    listed = a_published_model(door.database, owner, "listed")
    database, viewer = door.database, Viewer(account_id=owner)
    comment = database.run(social.comment(viewer, owner, Subject.MODEL, draft.id, "Mine.")).id
    seen = database.run(social.comment(viewer, owner, Subject.MODEL, listed.id, "Ours.")).id
    hidden = [("model", draft.id), ("version", version.id), ("image", image), ("comment", comment)]
    acts = [an_act(f"of a {entity}", number, entity=entity) for entity, number in hidden]
    acts += [an_act("of all", listed.id), an_act("of all's comment", seen, entity="comment")]
    stranger = door.client(door.new_key(*ALL, account="stranger"))
    database.run(accounts.ensure_account("keeper", Role.MODERATOR))
    keeper = door.client(door.new_key(*ALL, account="keeper"))
    refused = {item["key"]: item["reason"] for item in send(stranger, *acts).json()["refusals"]}
    assert refused == {f"of a {entity}": "no_entity" for entity, _ in hidden}
    assert [send(client, *acts).json()["accepted"] for client in (door.client(), keeper)] == [6, 6]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "comment"},
        {"occurredAt": "2026-06-01T12:00:00"},
        {"occurredAt": "yesterday"},
        {"amount": 2},
        {"kind": "tip", "amount": 0},
        {"entity": "shop"},
        {"entityId": 0},
        {"key": ""},
        {"key": "a\nb"},
        {"extra": 1},
    ],
)
def test_an_act_that_is_not_one_refuses_the_call_and_counts_nothing(shared_door: Door, change: dict[str, Any]) -> None:
    before = shared_door.database.run(Query("select 1 from activity_batches", {}, len))
    assert send(shared_door.client(), an_act("fine", 1), an_act("not", 1) | change).status_code == 422
    assert shared_door.database.run(Query("select 1 from activity_batches", {}, len)) == before


def test_more_than_a_thousand_acts_are_refused(shared_door: Door) -> None:
    assert send(shared_door.client(), *(an_act(f"n{n}", 1) for n in range(1001))).status_code == 422


def test_a_download_is_counted_without_being_waited_for(shared_door: Door) -> None:
    version = publish(shared_door, shared_door.client()).version
    client = shared_door.client()
    for ask in (client.get, client.get, client.head):
        assert ask(f"/api/download/models/{version}").status_code == 307
    assert client.get(f"/api/download/models/{version}?type=VAE").status_code == 404
    deadline = time.monotonic() + 30
    while not (found := acts_of(shared_door, "version", version)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert found == {"download": 2}


def test_what_was_counted_waits_for_postgres_and_is_counted_once(shared_door: Door) -> None:
    model = a_published_model(shared_door.database, shared_door.account_id, "tallied")

    async def count() -> None:
        nowhere = PostgresSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/x"))
        unreachable, there = AsyncDatabase(nowhere), AsyncDatabase(shared_door.settings.postgres)
        await there.open()
        buffer = activity_buffer.ActivityBuffer(unreachable)
        for _ in range(3):
            buffer.add(Counted.MODEL, model.id, Metric.VIEW)
        await buffer.flush()
        buffer._database = there
        await asyncio.gather(buffer.flush(), buffer.flush())
        await buffer.flush()
        await there.close()

    asyncio.run(count())
    assert acts_of(shared_door, "model", model.id) == {"view": 3}


def test_what_is_social_is_counted_where_it_is_written(shared_door: Door) -> None:
    model = a_published_model(shared_door.database, shared_door.account_id, "discussed")
    client, fan = shared_door.client(), shared_door.client(shared_door.new_key(*ALL, account="fan"))
    thumbs = f"/api/v1/reactions/model/{model.id}/thumbs"
    for ask in (fan.put, fan.put):
        ask(f"{thumbs}_up")
    client.put(f"{thumbs}_up")
    client.put(f"{thumbs}_down")
    for content in ("one", "two"):
        made = fan.post("/api/v1/comments", json={"entity": "model", "entityId": model.id, "content": content}).json()
    fan.delete(f"/api/v1/comments/{made['id']}")
    fan.put(f"/api/v1/reactions/comment/{made['id'] - 1}/heart")
    assert acts_of(shared_door, "model", model.id) == {"thumbs_up": 1, "thumbs_down": 1, "comment": 1}
    assert acts_of(shared_door, "comment", made["id"] - 1) == {"heart": 1}
    number = client.get("/api/v1/me").json()["id"]
    for ask in (fan.put, fan.put, fan.delete, fan.put):
        ask(f"/api/v1/follows/{number}")
    assert acts_of(shared_door, "user", number) == {"follow": 1}
