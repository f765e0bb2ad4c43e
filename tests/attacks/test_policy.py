"""Promise C27: hidden is hidden at every door, for every way of hiding, every live route and everybody who may come."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from platform_api.app import create_app
from platform_api.catalog.reading import model_versions
from storage.settings import Settings
from tests.attacks.policy_doors import (
    ASKS,
    CHANGES,
    GIVES_NOTHING,
    JOINS,
    Ask,
    Change,
    LinkAsk,
    picture,
)
from tests.attacks.policy_world import (
    ANONYMOUS,
    EXTRA_BYTES,
    HIDINGS,
    NAME,
    OTHER,
    OWNER,
    WEIGHTS,
    World,
    a_world,
    allowed,
    delete_for_good,
)
from tests.platform_api.access.test_guards import routes
from tests.platform_api.door import SWITCHED_ON

pytestmark = pytest.mark.timeout(300)
LOST = "deleted"
_ADDRESS = re.compile(r'"((?:https?://[^"]*)?/api/[^"]*)"')


@pytest.fixture(scope="module")
def world(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with a_world(tmp_path_factory.mktemp("world"), module_database_url, valkey_server) as made:
        yield made


@pytest.fixture(autouse=True)
def _links(world: World) -> None:
    note_links(world)


def note_links(world: World) -> None:
    """What each reader is led to while nothing is hidden."""
    path = f"/api/download/models/{world.ids['version']}"
    for who, client in world.clients.items():
        led = client.get(path)
        world.links[who] = {"download": led.headers["location"]} if led.status_code == 307 else world.links.get(who, {})


def faults(
    world: World, way: str, asks: tuple[Ask | LinkAsk, ...] = ASKS, *, everybody: bool = True
) -> list[tuple[object, ...]]:
    """Where a reader is given what it may not have, or is not given what it may.

    Unless `everybody` asks, one who may have it asks for what this way does not hide.
    """
    found: list[tuple[object, ...]] = []
    for ask in asks:
        may = allowed(way, ask.aspect) & ask.readers
        hides = everybody or may != allowed("", ask.aspect) & ask.readers
        for who in sorted(ask.readers if hides else {ask.whose or min(may)}):
            expected = who in allowed(way, ask.aspect) and ask.whose in (None, who)
            if ask.returns(world, who) != expected:
                place = ask.path if isinstance(ask, Ask) else ask.of.__name__
                found.append((way, ask.route, place, ask.aspect, who, "is not given it" if expected else "IS GIVEN IT"))
    return found


def test_every_route_of_the_app_is_in_the_matrix(tmp_path: Path) -> None:
    live = set(routes(create_app(Settings(data_folder=tmp_path, orchestration=SWITCHED_ON))))
    asked = {ask.route for ask in ASKS} | {change.route for change in CHANGES + JOINS}
    assert not asked & set(GIVES_NOTHING)
    assert live - asked - set(GIVES_NOTHING) == set(), "add the new route to tests/attacks/policy_doors.py"
    assert (asked | set(GIVES_NOTHING)) - live == set(), "no such route any more"


def test_what_is_not_hidden_is_given(world: World) -> None:
    assert faults(world, "") == []


# Who may have everything while nothing is hidden is asked of everybody in test_what_is_not_hidden_is_given.
@pytest.mark.parametrize("everybody", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["", "everybody"])
@pytest.mark.parametrize("way", [way for way in HIDINGS if way != LOST])
def test_hidden_is_hidden_at_every_door(world: World, way: str, everybody: bool) -> None:
    hiding = HIDINGS[way]
    assert world.run(hiding.hide)
    try:
        assert faults(world, way, everybody=everybody) == []
        assert refused_changes(world, way, (ANONYMOUS, OTHER) if everybody else (OTHER,)) == []
    finally:
        assert world.run(hiding.show)
    assert faults(world, "", ASKS[:8]) == []


def test_a_door_that_does_not_ask_is_seen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the test: one door is broken on purpose."""
    way = HIDINGS["a private file"]
    monkeypatch.setattr(model_versions, "check_fetched", lambda *_: None)
    world.run(way.hide)
    try:
        found = {(fault[1], fault[4]) for fault in faults(world, "a private file")}
    finally:
        world.run(way.show)
    path = "/api/v1/model-versions/{version_id}/files/{path}"
    assert found == {((method, path), who) for method in ("GET", "HEAD") for who in (ANONYMOUS, OTHER)}


def test_a_crawler_that_kept_every_address_gets_no_byte_after_a_take_down(world: World) -> None:
    kept = crawled(world)
    secrets = {WEIGHTS, EXTRA_BYTES, picture(world)}
    anybody = world.clients[ANONYMOUS]
    assert {secret for secret in secrets for path in kept if anybody.get(path).content == secret} == secrets
    way = HIDINGS["taken down"]
    world.run(way.hide)
    try:
        began = time.monotonic()
        for who in (ANONYMOUS, OTHER, OWNER):
            for path in kept:
                response = world.clients[who].get(path)
                assert response.content not in secrets, (who, path)
                assert NAME in path or NAME.encode() not in response.content.lower(), (who, path)
        assert time.monotonic() - began < 60
    finally:
        world.run(way.show)


def test_what_is_deleted_is_gone_at_every_door(database_url: str, valkey_server: str, tmp_path: Path) -> None:
    """In a world of its own: it is not undone."""
    with a_world(tmp_path, database_url, valkey_server) as world:
        note_links(world)
        delete_for_good(world)
        assert faults(world, LOST) == []
        assert refused_changes(world, LOST) == []


def crawled(world: World) -> list[str]:
    """Every address that anybody but a moderator is ever given, followed three steps deep."""
    ids, kept = world.ids, dict[str, None]()
    start = (
        "/api/v1/models?sort=Newest",
        f"/api/v1/model-versions/{ids['version']}",
        "/api/v1/images",
        "/api/v1/creators",
    )
    new = list(start)
    for _ in range(3):
        found: list[str] = []
        for path in new:
            for who in (ANONYMOUS, OTHER, OWNER):
                response = world.clients[who].get(path)
                if "location" in response.headers:
                    found.append(response.headers["location"])
                if response.headers.get("content-type", "").startswith("application/json"):
                    found += cast(list[str], _ADDRESS.findall(response.text))
        kept |= dict.fromkeys(new)
        new = [path for path in dict.fromkeys(found) if path not in kept and "/training-jobs" not in path]
    return list(kept | dict.fromkeys(new))


def refused_changes(
    world: World, way: str, strangers: tuple[str, ...] = (ANONYMOUS, OTHER)
) -> list[tuple[object, ...]]:
    """Changes by those who may not make them that were not refused, or that said what is hidden."""
    found: list[tuple[object, ...]] = []
    for change in CHANGES + JOINS:
        for who in strangers:
            if change in JOINS and who in allowed(way, change.on):
                continue
            response = sent(world, change, who)
            if response.status_code < 400 or response.status_code >= 500 or NAME in response.text:
                found.append((way, change.route, change.path, who, response.status_code))
    return found


def sent(world: World, change: Change, who: str) -> Any:
    """The response to a change."""
    body = change.json
    if isinstance(body, dict):
        words = cast(dict[str, Any], body)
        body = {name: filled(value, world) if isinstance(value, str) else value for name, value in words.items()}
    headers = {"Tus-Resumable": "1.0.0"} if "/uploads" in change.path else {}
    return world.clients[who].request(change.route[0], change.path.format(**world.ids), json=body, headers=headers)


def filled(text: str, world: World) -> int | str:
    """A value of a body with the world's ids in it."""
    if "{" not in text:
        return text
    whole = text.format(**world.ids)
    return int(whole) if whole.isdigit() else whole
