"""However many ask whether the door is well, its stores are asked once a second, one question at a time."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from platform_api.upkeep import health_checks
from platform_api.upkeep.health_checks import KeptLook
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query, column
from storage.postgres.events import outbox
from tests.platform_api.door import Door


def test_a_hundred_who_ask_at_once_share_one_look_and_those_who_leave_end_nobodys() -> None:
    looks = 0

    async def look() -> int:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.05)
        return looks

    async def check() -> None:
        kept = KeptLook(look)
        asking = [asyncio.create_task(kept.get()) for _ in range(100)]
        await asyncio.sleep(0.01)
        asking[0].cancel()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert found[1:] == [1] * 99
        assert await kept.get() == 1
        await asyncio.sleep(health_checks.KEPT_SECONDS)
        assert await kept.get() == 2

    asyncio.run(check())


def test_a_look_that_fails_is_not_kept() -> None:
    async def check() -> None:
        responses = iter([OSError("no"), 7])

        async def look() -> int:
            response = next(responses)
            if isinstance(response, OSError):
                raise response
            return response

        kept = KeptLook(look)
        assert isinstance((await asyncio.gather(kept.get(), return_exceptions=True))[0], OSError)
        assert await kept.get() == 7

    asyncio.run(check())


def test_ready_and_health_count_for_the_address_and_live_does_not(shared_door: Door) -> None:
    client = shared_door.client("")
    assert client.get("/health/ready").json() == {"status": client.get("/health").json()["status"]}
    counted = {path: "x-ratelimit-limit" in client.get(path).headers for path in ("/health", "/health/ready")}
    assert counted == {"/health": True, "/health/ready": True}
    live = client.get("/health/live")
    assert (live.status_code, live.json(), "x-ratelimit-limit" in live.headers) == (200, {"status": "ok"}, False)


def test_what_waits_on_a_channel_of_another_release_has_a_figure_of_its_own(door: Door) -> None:
    reader = door.database.run(accounts.ensure_account("reader")).number
    door.database.run(Query("insert into channels (name) values ('pigeon') returning name", {}, len))
    notification = "insert into notifications (key, type, details, audience, title, text, done_at) " + (
        "values ('k', 'system', '{}', 'everyone', 'T', '', now()) returning id"
    )
    [added] = door.database.run(column(notification, {}, int))
    delivery = "insert into deliveries (notification_id, reader, channel, state, frequency, due_at) " + (
        "values (%(id)s, %(reader)s, 'pigeon', 'waiting', 'now', now() - interval '1 hour') returning id"
    )
    door.database.run(Query(delivery, {"id": added, "reader": reader}, len))
    health = door.client("").get("/health").json()["parts"]["notifications"]
    assert (health["ofOtherReleases"], health["waiting"], health["oldestSeconds"]) == (1, 0, 0.0)


def test_figures_are_looked_at_once_a_second_and_count_for_the_address(
    shared_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, looks, backlog = shared_door.client(""), [0], outbox.backlog

    def counted() -> Query[outbox.Backlog]:
        looks[0] += 1
        return backlog()

    time.sleep(health_checks.KEPT_SECONDS)
    monkeypatch.setattr(outbox, "backlog", counted)
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(client.get, ["/metrics"] * 40))
    assert all("darkroom_refusals" in response.text for response in responses)
    assert all("x-ratelimit-limit" in response.headers for response in responses)
    assert 1 <= looks[0] <= 3, f"{looks[0]} looks for 40 askers"
