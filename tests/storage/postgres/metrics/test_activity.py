"""Acts are counted once per key, and what cannot be counted is rejected."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from storage.postgres.catalog import models
from storage.postgres.connection import Database, Query
from storage.postgres.metrics import activity
from storage.postgres.upkeep import retention
from storage.records.catalog.catalog import Model
from storage.records.metrics.activity import Act, Counted, Metric, Reason
from storage.settings import PostgresSettings
from tests.storage.makers import a_published_model, an_account

NOW = datetime(2026, 6, 10, 12, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def database(module_database_url: str):
    with Database(PostgresSettings(url=SecretStr(module_database_url), pool_size=20)) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(database: Database) -> Model:
    return a_published_model(database, an_account(database))


def an_act(key: str, model: Model, at: datetime = NOW, **fields: Any) -> Act:
    whole = {"entity": Counted.MODEL, "entity_id": model.id, "metric": Metric.VIEW, "occurred_at": at, **fields}
    return Act(key=key, **whole)


def counted(database: Database, batch_id: int) -> int:
    rows = Query("select count(*) as n from activity where batch_id = %(id)s", {"id": batch_id}, list)
    return database.run(rows)[0]["n"]


def test_a_batch_counts_each_key_once_however_often_it_comes(database: Database, model: Model) -> None:
    acts = [an_act(f"once-{n}", model, NOW - timedelta(hours=n)) for n in range(30)]
    first = database.run(activity.ingest("a", acts, now=NOW))
    again = database.run(activity.ingest("a", [*acts, an_act("new", model)], now=NOW + timedelta(days=9)))
    assert (first.accepted, first.repeated, first.rejected) == (30, 0, 0)
    assert (again.accepted, again.repeated, again.rejected) == (0, 30, 1)  # the new one is too old by then
    assert (counted(database, first.id), counted(database, again.id)) == (30, 0)
    waiting = Query("select hour from activity_pending where batch_id = %(id)s", {"id": first.id}, list)
    assert len(database.run(waiting)) == 30
    assert database.run(Query("select 1 from activity_staging", {}, len)) == 0


def test_two_sources_may_use_the_same_key(database: Database, model: Model) -> None:
    acts = [an_act("shared", model), an_act("shared", model)]
    for source in ("x", "y"):
        batch = database.run(activity.ingest(source, acts, now=NOW))
        assert (batch.accepted, batch.repeated) == (1, 1)


def test_the_same_batch_at_once_is_counted_once(database: Database, model: Model) -> None:
    acts = [an_act(f"race-{n}", model) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda _: database.run(activity.ingest("r", acts, now=NOW)), range(16)))
    assert sum(batch.accepted for batch in batches) == 200
    assert sum(batch.accepted + batch.repeated for batch in batches) == 16 * 200
    assert sum(counted(database, batch.id) for batch in batches) == 200


def test_the_same_key_with_another_time_is_named_and_counted_as_rejected(database: Database, model: Model) -> None:
    database.run(activity.ingest("t", [an_act("moved", model)], now=NOW))
    acts = [an_act("moved", model, NOW - timedelta(days=1)), an_act("in one call", model)]
    acts.append(an_act("in one call", model, NOW - timedelta(seconds=1)))
    batch = database.run(activity.ingest("t", acts, now=NOW))
    assert (batch.accepted, batch.repeated, batch.rejected) == (1, 0, 2)
    assert {refusal.key_text: refusal.reason for refusal in batch.refusals} == {
        "moved": Reason.OTHER_TIME,
        "in one call": Reason.OTHER_TIME,
    }
    listed = {row.key_text: row.occurred_at for row in database.run(activity.rejected(limit=2))}
    assert listed == {"moved": acts[0].occurred_at, "in one call": acts[2].occurred_at}


def test_what_cannot_be_counted_is_rejected_and_listed_and_the_rest_is_counted(
    database: Database, model: Model
) -> None:
    gone = a_published_model(database, model.account_id, "gone")
    database.run(models.delete(gone, "spam"))
    acts = [
        an_act("7 days", model, NOW - timedelta(days=7)),
        an_act("older", model, NOW - timedelta(days=7, seconds=1)),
        an_act("5 minutes", model, NOW + timedelta(minutes=5)),
        an_act("later", model, NOW + timedelta(minutes=5, seconds=1)),
        an_act("deleted", gone),
        *(an_act(f"no {entity}", model, entity=entity, entity_id=999999) for entity in Counted),
    ]
    database.run(activity.ingest("s", acts, now=NOW))
    batch = database.run(activity.ingest("s", acts, now=NOW))
    reasons = {
        "older": Reason.TOO_OLD,
        "later": Reason.TOO_EARLY,
        "deleted": Reason.NO_ENTITY,
        **{f"no {entity}": Reason.NO_ENTITY for entity in Counted},
    }
    assert (batch.accepted, batch.repeated, batch.rejected) == (0, 2, len(reasons))
    assert {refusal.key_text: refusal.reason for refusal in batch.refusals} == reasons
    listed = [row for row in database.run(activity.rejected(limit=100)) if row.key_text in reasons]
    assert Counter(row.key_text for row in listed) == Counter(reasons.keys())


def test_a_batch_that_fails_leaves_nothing(database: Database, model: Model) -> None:
    before = database.run(Query("select 1 from activity_batches", {}, len))
    broken = [an_act("fine", model), an_act("broken", model, amount=2**40)]
    with pytest.raises(Exception, match="out of range"):
        database.run(activity.ingest("f", broken, now=NOW))
    assert database.run(Query("select 1 from activity_batches", {}, len)) == before
    assert database.run(activity.ingest("f", broken[:1], now=NOW)).accepted == 1


def test_old_days_are_dropped_whole_and_keys_forgotten(database_url: str) -> None:
    with Database(PostgresSettings(url=SecretStr(database_url))) as database:
        model = a_published_model(database, an_account(database))
        today = datetime.now(UTC)
        for days in (500, 401, 399, 0):
            at = today - timedelta(days=days)
            database.run(activity.ingest("o", [an_act(f"{days}", model, at)], now=at))
        database.run(activity.make_days_ahead())
        assert database.run(activity.drop_days(keep_days=400)) == [], "some of them wait to be summed"
        database.run(Query("delete from activity_pending", {}, len))
        assert database.run(activity.drop_days(keep_days=400)) == [2]
        for table in ("activity_keys", "activity_rejected", "activity_batches"):
            database.run(retention.delete_batch(table, today - timedelta(days=14), 5000))
        left = database.run(Query("select occurred_at from activity order by 1", {}, list))
        assert [(today - row["occurred_at"]).days for row in left] == [399, 0]
        assert database.run(Query("select 1 from activity_keys", {}, len)) == 1
