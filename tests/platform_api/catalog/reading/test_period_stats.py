"""Counts by period at the door: of a model with its versions, of a version, of an image."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from storage.postgres.catalog import catalog, models
from storage.postgres.metrics import activity, rollups
from storage.records.metrics.activity import Act, Counted, Metric
from tests.platform_api.door import Door
from tests.storage.makers import a_published_model, an_image

NOW = datetime.now(UTC)
PERIODS = {"Day": 1, "Week": 7, "Month": 30, "Year": 365, "AllTime": 10_000}


def count(door: Door, entity: Counted, entity_id: int, metric: Metric, *days_ago: int) -> None:
    """An act so many days ago, each."""
    for ago in days_ago:
        at, key = NOW - timedelta(days=ago), f"{entity} {entity_id} {metric} {ago}"
        act = Act(key=key, entity=entity, entity_id=entity_id, metric=metric, occurred_at=at)
        assert door.database.run(activity.ingest("test", [act], now=at)).accepted == 1


def roll_up(door: Door) -> None:
    for day in sorted({*door.database.run(rollups.waiting_days()), NOW.date()}):
        door.database.run(rollups.roll_up_day(day, NOW))


def within(days_ago: list[int]) -> dict[str, int]:
    """How many of some days each period holds."""
    return {name: sum(ago < length for ago in days_ago) for name, length in PERIODS.items()}


def shown(stats: dict[str, dict[str, int]], field: str) -> dict[str, int]:
    return {period: counts[field] for period, counts in stats.items()}


def test_each_period_has_the_acts_of_its_days_and_all_time_is_what_the_model_says(shared_door: Door) -> None:
    database, client = shared_door.database, shared_door.client("")
    model = a_published_model(database, shared_door.account_id)
    [version], image = database.run(catalog.versions([model.id])), an_image(database, model)
    of_model = f"/api/v1/models/{model.id}"
    assert client.get(f"{of_model}/stats").json()["stats"]["AllTime"]["downloadCount"] == 0
    count(shared_door, Counted.VERSION, version.id, Metric.DOWNLOAD, 0, 6, 7, 29, 30, 364, 365)
    count(shared_door, Counted.MODEL, model.id, Metric.THUMBS_UP, 0, 8)
    count(shared_door, Counted.VERSION, version.id, Metric.THUMBS_UP, 8)
    count(shared_door, Counted.IMAGE, image, Metric.HEART, 1)
    roll_up(shared_door)
    found = client.get(f"{of_model}/stats").json()
    assert (found["id"], found["asOf"]) == (model.id, str(NOW.date()))
    assert list(found["stats"]) == list(PERIODS)
    assert shown(found["stats"], "downloadCount") == within([0, 6, 7, 29, 30, 364, 365])
    assert shown(found["stats"], "thumbsUpCount") == within([0, 8, 8])
    said = client.get(of_model).json()["stats"]
    assert {field: said[field] for field in said if field in found["stats"]["AllTime"]} == {
        field: value for field, value in found["stats"]["AllTime"].items() if field in said
    }
    one = client.get(f"/api/v1/model-versions/{version.id}/stats").json()["stats"]
    assert shown(one, "thumbsUpCount") == within([8])
    received = client.get(f"/api/v1/images/{image}/stats").json()["stats"]
    assert (shown(received, "heartCount"), shown(received, "likeCount")) == (within([1]), within([]))


@pytest.mark.parametrize("noun", ["models", "model-versions", "images"])
def test_what_is_hidden_has_no_counts_and_what_is_gone_says_why(shared_door: Door, noun: str) -> None:
    database, owner, anybody = shared_door.database, shared_door.client(), shared_door.client("")
    model = a_published_model(database, shared_door.account_id, f"hidden {noun}")
    [version], image = database.run(catalog.versions([model.id])), an_image(database, model)
    entity_id = {"models": model.id, "model-versions": version.id, "images": image}[noun]
    address = f"/api/v1/{noun}/{entity_id}/stats"
    database.run(models.unpublish(database.run(catalog.model_by_id(model.id))))
    assert (anybody.get(address).status_code, owner.get(address).status_code) == (404, 200)
    database.run(models.publish(database.run(catalog.model_by_id(model.id))))
    database.run(models.delete(database.run(catalog.model_by_id(model.id)), "deleted by its owner"))
    assert anybody.get(address).status_code == 410
    assert anybody.get(f"/api/v1/{noun}/999999/stats").status_code == 404
