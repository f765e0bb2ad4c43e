"""Pictures on the page of a flow run outlive a week, and vanish with what they show."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from uuid import UUID

import httpx
import pytest

from flows.runs import artifacts
from flows.runs.artifacts import image_link
from storage.postgres.catalog import catalog, models
from storage.postgres.connection import Query
from storage.settings import RetentionSettings
from tests.platform_api.door import ALL, Door, register_starter, serving
from tests.platform_api.http.test_downloads import CONTENT, Published, publish

pytestmark = pytest.mark.timeout(300)
DAY = 86400


@pytest.fixture(scope="module")
def door(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """An API of this file's own, in which it may ban and take down."""
    with serving(tmp_path_factory.mktemp("door"), module_database_url, valkey_server) as opened:
        register_starter(opened.database)
        yield opened


class DaysAgo:
    """A clock that is behind."""

    def __init__(self, days: int) -> None:
        self._days = days

    def time(self) -> float:
        """Unix seconds."""
        return time.time() - self._days * DAY


def made_days_ago(door: Door, made: Published, days: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address that a flow wrote on its page so many days ago, below the API's own."""
    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "time", DaysAgo(days))
        settings = door.settings.model_copy(update={"retention": RetentionSettings(flow_run_days=90)})
        address = image_link(settings, UUID(made.job), made.sha256)
    assert address is not None
    return address.removeprefix(door.settings.api.public_url)


def status(client: httpx.Client, address: str) -> int:
    return client.get(address).status_code


def test_a_picture_is_shown_as_long_as_its_page_is_kept(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    made, anybody = publish(door, door.client(), availability="Private"), door.client("")
    for days in (0, 8, 119):
        response = anybody.get(made_days_ago(door, made, days, monkeypatch))
        assert (response.status_code, response.content) == (200, CONTENT), days
        assert response.headers["cache-control"] == "private, max-age=0, must-revalidate"
    assert status(anybody, made_days_ago(door, made, 121, monkeypatch)) == 403


def test_it_vanishes_when_its_files_are_deleted(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    client = door.client()
    made = publish(door, client, availability="Private")
    address = made_days_ago(door, made, 0, monkeypatch)
    assert client.delete(f"/api/v1/training-jobs/{made.job}/files").status_code == 204
    assert status(door.client(""), address) == 404


def test_it_vanishes_when_the_model_is_taken_down(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    made, anybody = publish(door, door.client()), door.client("")
    address = made_days_ago(door, made, 8, monkeypatch)
    assert status(anybody, address) == 200
    model = door.database.run(catalog.model_by_id(made.model))
    door.database.run(models.take_down(model, "a claim"))
    response = anybody.get(address)
    assert (response.status_code, CONTENT in response.content) == (410, False)
    assert "a claim" in response.text


def test_it_vanishes_when_its_owner_is_banned(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    painter = dataclasses.replace(door, account_id=door.account("painter"))
    client = painter.client(door.new_key(*ALL, account="painter"))
    made = publish(painter, client)
    address = made_days_ago(painter, made, 8, monkeypatch)
    assert status(client, address) == 200
    ban = "update accounts set status = 'banned', ban_reason = 'spam' where name = 'painter' returning id"
    painter.database.run(Query(ban, {}, len))
    assert status(door.client(""), address) == 404
