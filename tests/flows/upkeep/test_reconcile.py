"""Stores agree, and we know when they do not: each planted difference is reported by name, the safe ones repaired."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from flows.metrics.rollups import roll_up
from flows.upkeep import reconcile as reconciling
from flows.upkeep import tracking_repairs
from flows.upkeep.reconcile import (
    ReconcileIncomplete,
    check_invariants,
    compare_stores,
    publish_scheduled,
    reconcile,
    reconcile_blobs,
    reconcile_counts,
)
from storage.postgres.catalog import models
from storage.postgres.connection import Query
from storage.postgres.jobs import jobs, publication
from storage.postgres.locks import RECONCILE
from storage.postgres.metrics import activity, rollups
from storage.postgres.upkeep import invariants
from storage.records.catalog.catalog import FileRole, NewFile, TrainedVersion
from storage.records.jobs.jobs import Job
from storage.records.metrics.activity import Act, Counted, Metric
from storage.settings import Settings
from storage.stores import Stores, open_stores
from tests.storage.makers import a_job, a_model, a_published_model, a_version, an_account


def a_published_job(stores: Stores) -> Job:
    job = a_job(stores.database)
    execute(stores, "delete from data_set_images")
    stores.database.run(jobs.claim(job.id, 1, uuid4()))
    weights = stores.blobs.put(b"weights")
    file = NewFile(path="w.safetensors", role=FileRole.WEIGHTS, sha256=weights.sha256, size=weights.size)
    new = TrainedVersion(
        model_name="m", base_model="starter", trained_words=("sks",), recipe={}, evaluation=None, files=(file,)
    )
    stores.database.run(publication.publish(job.id, 1, new))
    return stores.database.run(jobs.get(job.id))


def execute(stores: Stores, statement: str) -> None:
    stores.database.run(Query(statement, {}, len))


def test_a_healthy_system_has_nothing_to_report(stores: Stores) -> None:
    a_published_job(stores)
    assert check_invariants(stores) == []
    assert reconcile_blobs(stores) == []


def test_what_no_relay_has_published_is_published_and_counted(stores: Stores) -> None:
    model = a_model(stores.database, an_account(stores.database), "overdue")
    a_version(stores.database, model)
    stores.database.run(models.publish(model, datetime.now(UTC) + timedelta(hours=1)))
    assert publish_scheduled(stores) == []
    for table in ("models", "model_versions"):
        execute(stores, f"update {table} set scheduled_for = now() - interval '1 day'")
    assert publish_scheduled(stores) == ["2 models and versions were scheduled for a time that had come: published"]
    assert publish_scheduled(stores) == []


def test_totals_and_counts_that_are_not_those_of_the_days_are_named_and_written_again(stores: Stores) -> None:
    now, owner = datetime.now(UTC), an_account(stores.database)
    viewed = [a_published_model(stores.database, owner, name).id for name in ("one", "two", "three")]
    for model in viewed:
        at = now - timedelta(days=1)
        act = Act(key=f"{model}", entity=Counted.MODEL, entity_id=model, metric=Metric.DOWNLOAD, occurred_at=at)
        stores.database.run(activity.ingest("test", [act], now=now))
    roll_up(stores, now)
    assert reconcile_counts(stores) == []
    whole = all_totals(stores)

    first, second, third = viewed
    execute(stores, f"update activity_totals set week = 9, all_time = 9 where entity_id = {first}")
    execute(stores, f"delete from activity_totals where entity_id = {second}")
    execute(stores, f"insert into activity_totals values ({third}, 'model', 'tip', 4, 4, 4, 4)")
    execute(stores, f"update model_stats set download_count = 7 where model_id = {third}")
    ending = "in the last 7, 30, 365 days and in all were "
    assert reconcile_counts(stores) == [
        f"download of model {first} {ending}9, 1, 1, 9, its days sum to 1, 1, 1, 1: written again",
        f"download of model {second} {ending}none, none, none, none, its days sum to 1, 1, 1, 1: written again",
        f"tip of model {third} {ending}4, 4, 4, 4, its days sum to 0, 0, 0, 0: written again",
        "1 counts of the catalogue differed from their totals: written again",
    ]
    assert {row: total for row, total in all_totals(stores).items() if any(total)} == whole
    assert reconcile_counts(stores) == []


def test_one_comparison_looks_at_some_entities_and_the_next_goes_on(stores: Stores) -> None:
    execute(stores, "update rollup_state set as_of = current_date")
    execute(stores, "insert into activity_totals select id, 'user', 'follow', 0, 0, 0, 0 from generate_series(1, 5) id")
    seen: list[list[int]] = []
    for _ in range(4):
        execute(stores, "update activity_totals set week = 1")
        seen.append([total.entity_id for total in stores.database.run(rollups.compare(entities=2)).totals])
    assert seen == [[1, 2], [3, 4], [5], [1, 2]]


def all_totals(stores: Stores) -> dict[tuple[int, str], tuple[int, ...]]:
    rows = stores.database.run(Query("select * from activity_totals", {}, list))
    return {
        (row["entity_id"], row["metric"]): (row["week"], row["month"], row["year"], row["all_time"]) for row in rows
    }


def test_an_invariant_that_takes_too_long_is_named_and_hides_no_other(
    settings: Settings, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_published_job(stores)
    execute(stores, "delete from version_files")
    postgres = settings.postgres.model_copy(update={"statement_timeout_seconds": 0.5})
    monkeypatch.setitem(invariants.SQL, "miscounted_usage", "select pg_sleep(10)::text as fault")
    monkeypatch.setattr(reconciling, "reconcile_prefect", lambda _: [])
    monkeypatch.setattr(tracking_repairs, "reconcile_tracking", lambda _: [])
    with open_stores(settings.model_copy(update={"postgres": postgres})) as impatient:
        for found in (check_invariants(impatient), compare_stores(impatient).findings):
            assert any("invariant miscounted_usage could not be checked: Postgres cancelled" in one for one in found)
            assert any("has no weights file" in one for one in found), job.id


def test_a_comparison_that_breaks_is_named_and_hides_no_other(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    a_published_job(stores)
    execute(stores, "delete from version_files")

    def broken(_: Stores) -> list[str]:
        raise KeyError("strange")

    monkeypatch.setattr(reconciling, "reconcile_prefect", lambda _: [])
    broken.__name__ = "reconcile_tracking"
    monkeypatch.setattr(tracking_repairs, "reconcile_tracking", broken)
    compared = compare_stores(stores)
    assert compared.broken == ["reconcile_tracking did not end: KeyError: 'strange'."]
    assert any("has no weights file" in one for one in compared.findings)


def test_the_bytes_of_some_accounts_are_summed_in_one_run_and_of_all_in_turn(stores: Stores) -> None:
    owners = [an_account(stores.database, f"owner-{number}") for number in range(12)]
    execute(stores, "insert into account_usage (account_id, bytes) select id, 7 from accounts")
    every = {f"account {owner} holds other bytes than are counted" for owner in owners}
    usage = ["miscounted_usage"]
    assert set(stores.database.run(invariants.broken(names=usage))) == every
    assert set(stores.database.run(invariants.broken(names=usage, accounts=12))) == every
    statement = invariants.SQL["miscounted_usage"]
    found: list[str] = []
    for minutes in range(0, 40, 10):
        later = statement.replace("now()", f"(now() + interval '{minutes} minutes')")
        parameters = {"accounts": 3}
        rows = stores.database.run(Query(later, parameters, lambda rows: [row["fault"] for row in rows]))
        assert len(rows) < 12
        found += rows
    assert sorted(found) == sorted(str(owner) for owner in owners)


def test_a_run_in_which_a_comparison_breaks_fails_with_it(
    stores: Stores, environment: dict[str, str], prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Stores) -> list[str]:
        raise KeyError("strange")

    broken.__name__ = "reconcile_tracking"
    monkeypatch.setattr(tracking_repairs, "reconcile_tracking", broken)
    with pytest.raises(ReconcileIncomplete, match="reconcile_tracking did not end: KeyError: 'strange'"):
        reconcile()


def test_a_second_run_ends_at_once(stores: Stores, environment: dict[str, str], prefect_server: None) -> None:
    a_published_job(stores)
    execute(stores, "delete from version_files")
    with stores.database.session_lock(RECONCILE) as held:
        assert held
        assert reconcile() == []


def test_every_broken_invariant_is_said_in_a_sentence(stores: Stores) -> None:
    job = a_published_job(stores)
    breaks = {
        "update outbox set created_at = now() - interval '1 hour'": "still has had no effect",
        "delete from outbox where kind = 'job.succeeded'": f"job {job.id} ended without an event",
        "delete from outbox where kind = 'model_version.published'": "was published without an event",
        "delete from version_files": "has no weights file",
        "insert into sort_keys (list, k1, k2, item_id) values ('newest', 1, 0, 1)": "does not stand in the lists",
    }
    for statement, sentence in breaks.items():
        before = check_invariants(stores)
        execute(stores, statement)
        assert any(sentence in fault for fault in set(check_invariants(stores)) - set(before)), sentence
    silent = a_job(stores.database)
    stores.database.run(jobs.claim(silent.id, 1, uuid4()))
    execute(stores, "update jobs set heartbeat_at = now() - interval '1 hour' where state = 'running'")
    assert f"job {silent.id} is silent and got no new attempt" in check_invariants(stores)
