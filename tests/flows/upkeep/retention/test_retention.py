"""What is old goes in small steps, what is not stays, and every table and folder has a rule that says so."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from prefect.client.orchestration import SyncPrefectClient

from flows.runs.flow_names import APPLY_RETENTION
from flows.runs.light_tracking import UNTAGGED_EXPERIMENTS
from flows.upkeep.retention.retention import apply, apply_retention
from flows.upkeep.retention.retention_rules import RetentionRule, table_rules
from storage.postgres.accounts import idempotency
from storage.postgres.catalog import catalog, versions
from storage.postgres.connection import Query, Script
from storage.postgres.jobs import job_files, jobs, publication, sampled_sets
from storage.postgres.upkeep import invariants, retention
from storage.records.catalog.catalog import TrainedVersion
from storage.records.catalog.vocabulary import ModelType
from storage.records.jobs.choices import TrainingMethod
from storage.settings import MlflowSettings
from storage.stores import Stores
from tests.storage.makers import a_bare_generation, a_drawn_picture, a_job, a_workflow, an_account, an_image

DOCUMENT = Path(__file__).parents[4] / "docs" / "how-to" / "retention.md"
DAY = timedelta(days=1)


def execute(stores: Stores, statement: str, **parameters: object) -> list[dict[str, object]]:
    return stores.database.run(Query(statement, parameters, lambda rows: [dict(row) for row in rows]))


def size(stores: Stores, table: str) -> int:
    [row] = execute(stores, f"select count(*)::int as n from {table}")
    return int(str(row["n"]))


def rule_of(table: str) -> RetentionRule:
    [rule] = table_rules(table)
    return rule


def events(stores: Stores, count: int, age: timedelta, *, done: bool = True) -> None:
    """Events that had their effect so long ago, or none yet."""
    statement = """
        insert into outbox (kind, subject, created_at, done_at)
        select 'follow.added', 'x', now() - %(age)s::interval, case when %(done)s then now() - %(age)s::interval end
          from generate_series(1, %(count)s) returning id"""
    execute(stores, statement, age=age, done=done, count=count)


OLD_ROWS: dict[str, str] = {
    "outbox": "insert into outbox (kind, subject, done_at) values ('follow.added', 'x', %(at)s)",
    "idempotency_keys": "insert into idempotency_keys (account_id, key, request_hash, created_at)"
    " values (%(account)s, %(at)s::text, '', %(at)s)",
    "sort_keys": "insert into sort_keys (list, k1, k2, item_id, replaced, replaced_at)"
    " values ('newest', 1, 1, 1, '3', %(at)s)",
    "search_windows": "insert into search_windows (asked, ids, total, facets, degraded, created_at)"
    " values ('', '{}', 0, '{}', '{}', %(at)s)",
    "search_vectors": "insert into search_vectors (encoder, text_hash, vector, created_at)"
    " values ('e', sha256(%(at)s::text::bytea), '', %(at)s)",
    "activity_keys": "insert into activity_keys (key, occurred_at) values (gen_random_uuid(), %(at)s)",
    "activity_rejected": "with batch as (insert into activity_batches (source) values ('s') returning id)"
    " insert into activity_rejected (batch_id, key, key_text, reason, entity, entity_id, metric, amount, occurred_at,"
    " noted_at) select id, gen_random_uuid(), '', 'too_old', 'model', 1, 'view', 1, now(), %(at)s from batch",
    "activity_batches": "insert into activity_batches (source, received_at) values ('s', %(at)s)",
    "alerts": "insert into alerts (name, detail, cleared_at) values ('late', '', %(at)s)",
    "backfills": "insert into backfills (flow, first, last, finished_at) values ('f', now(), now(), %(at)s)",
    "base_models": "insert into base_models (name, folder_hash, facts, retired_at)"
    " values (%(at)s::text, '', '{}', %(at)s)",
    "job_checkpoints": "insert into job_checkpoints (job_id, step, sha256, size)"
    " select id, coalesce((select max(step) from job_checkpoints), 0) + 1, '', 1 from jobs where ended_at = %(at)s",
    "job_stages": "insert into job_stages (job_id, stage, key, result, made_by, attempt, seconds, peak_bytes)"
    " select id, 'export', '', '{}', id, 1, 1, 1 from jobs where ended_at = %(at)s",
    "job_files": "insert into job_files (job_id, name, role, sha256, size, media_type, created_at)"
    " select id, %(at)s::text, 'image', '', 1, 'image/png', %(at)s from jobs where ended_at = %(at)s",
    "source_pictures": "insert into source_pictures (account_id, sha256, width, height, size, used_at)"
    " values (%(account)s, encode(sha256(%(at)s::text::bytea), 'hex'), 1, 1, 1, %(at)s)",
}
KEPT = {
    "outbox": 30,
    "idempotency_keys": 1,
    "sort_keys": 1,
    "search_windows": 1 / 144,
    "search_vectors": 365,
    "activity_keys": 14,
    "activity_rejected": 400,
    "activity_batches": 30,
    "alerts": 400,
    "backfills": 400,
    "base_models": 90,
    "job_checkpoints": 90,
    "job_stages": 90,
    "job_files": 365,
    "source_pictures": 30,
}
"""Days that the rows of each table are kept."""


def an_ended_job(stores: Stores, at: datetime, *, generation: bool = False) -> None:
    """A job that was cancelled at a time."""
    job = a_bare_generation(stores.database) if generation else a_job(stores.database)
    stores.database.run(jobs.cancel(job.id, job.account_id))
    execute(stores, "alter table jobs disable trigger job_moves")
    execute(stores, "update jobs set ended_at = %(at)s where id = %(id)s returning id", at=at, id=job.id)
    execute(stores, "alter table jobs enable trigger job_moves")


def test_all_that_goes_by_its_age_is_tried() -> None:
    assert set(OLD_ROWS) == set(KEPT) == set(retention.BATCHES)


@pytest.mark.parametrize("table", retention.BATCHES)
def test_what_is_older_than_its_setting_goes_and_what_is_not_stays(stores: Stores, table: str) -> None:
    account, now = an_account(stores.database), stores.database.run(retention.now())
    kept, minute = timedelta(days=KEPT[table]), timedelta(minutes=1)
    for age in (kept + minute, kept * 3 + minute, kept - minute, -DAY):
        if table in ("job_checkpoints", "job_stages", "job_files"):
            an_ended_job(stores, now - age, generation=table == "job_files")
        execute(stores, OLD_ROWS[table] + " returning 1", at=now - age, account=account)
    before = size(stores, table)
    report = apply(stores, [rule_of(table)])
    assert (report.faults, report.count) == ([], 2)
    assert size(stores, table) == before - 2
    assert apply(stores, [rule_of(table)]).count == 0


def test_of_what_was_drawn_long_ago_what_was_published_stays(stores: Stores) -> None:
    job = a_workflow(stores.database, count=2)
    training = a_job(stores.database, job.account_id)
    held = stores.database.run(jobs.claim(job.id, 1, None))
    published, other = (a_drawn_picture(stores.database, held, number=number) for number in range(2))
    a_drawn_picture(stores.database, stores.database.run(jobs.claim(training.id, 1, None)))
    stores.database.run(jobs.succeed(job.id, 1, None))
    stores.database.run(jobs.fail(training.id, 1, "test", "because"))
    execute(stores, "alter table jobs disable trigger job_moves")
    execute(stores, "update jobs set ended_at = now() - interval '366 days' returning 1")
    execute(stores, "alter table jobs enable trigger job_moves")
    execute(stores, "update job_files set created_at = now() - interval '367 days' returning 1")
    [model] = stores.database.run(catalog.list_models(job.account_id))
    an_image(stores.database, model, sha256=published.sha256)
    assert apply(stores, [rule_of("job_files")]).count == 1
    assert [file.name for file in stores.database.run(job_files.files(job.id))] == [published.name]
    assert other.name != published.name
    assert len(stores.database.run(job_files.files(training.id))) == 1


def test_a_base_model_that_was_replaced_stays_while_a_job_that_names_it_can_go_on(stores: Stores) -> None:
    job = a_job(stores.database)
    execute(stores, "update base_models set retired_at = now() - interval '400 days' returning 1")
    assert apply(stores, [rule_of("base_models")]).count == 0
    stores.database.run(jobs.cancel(job.id, job.account_id))
    assert apply(stores, [rule_of("base_models")]).count == 0, "its checkpoints are still there"
    execute(stores, "alter table jobs disable trigger job_moves")
    execute(stores, "update jobs set ended_at = now() - interval '91 days' returning 1")
    execute(stores, "alter table jobs enable trigger job_moves")
    assert apply(stores, [rule_of("base_models")]).count == 1


def test_a_job_that_ended_keeps_its_newest_checkpoint_for_its_retry(stores: Stores) -> None:
    job = a_job(stores.database)
    for step in (10, 20, 30):
        execute(
            stores,
            "insert into job_checkpoints (job_id, step, sha256, size) values (%(id)s, %(step)s, '', 1) returning 1",
            id=job.id,
            step=step,
        )
    assert apply(stores, [rule_of("job_checkpoints")]).count == 0, "the job has not ended"
    stores.database.run(jobs.cancel(job.id, job.account_id))
    assert apply(stores, [rule_of("job_checkpoints")]).count == 2
    assert [one.step for one in stores.database.run(job_files.checkpoints(job.id))] == [30]


def test_of_a_job_that_succeeded_what_was_asked_for_stays_to_choose_from(stores: Stores) -> None:
    """The others are there only where its process died before it came to them."""
    job = a_job(stores.database, steps=30, checkpoint_every=5, keep_every=10)
    stores.database.run(jobs.claim(job.id, 1, None))
    for step in (10, 15, 20, 25):
        stores.database.run(job_files.put_checkpoint(job.id, 1, step, f"{step:064x}", 1))
    stores.database.run(jobs.succeed(job.id, 1, None))
    assert apply(stores, [rule_of("job_checkpoints")]).count == 2
    assert [one.step for one in stores.database.run(job_files.checkpoints(job.id))] == [20, 10]


def test_a_base_model_that_was_replaced_stays_while_the_catalogue_has_an_adapter_of_it(stores: Stores) -> None:
    job = a_job(stores.database, method=TrainingMethod.LORA)
    stores.database.run(jobs.claim(job.id, 1, None))
    new = TrainedVersion(
        model_name="the mug",
        base_model="SD 1.5",
        trained_words=(),
        recipe=job.request,
        evaluation=None,
        files=(),
        type=ModelType.LORA,
    )
    version = stores.database.run(publication.publish(job.id, 1, new))
    execute(stores, "update base_models set retired_at = now() - interval '400 days' returning 1")
    assert apply(stores, [rule_of("base_models")]).count == 0
    stores.database.run(versions.delete(version, "by its owner"))
    assert apply(stores, [rule_of("base_models")]).count == 1


def test_an_event_that_waits_stays_however_old(stores: Stores) -> None:
    events(stores, 3, timedelta(days=400), done=False)
    assert apply(stores, [rule_of("outbox")]).count == 0
    assert size(stores, "outbox") == 3


def test_what_retention_deleted_is_not_taken_for_lost(stores: Stores) -> None:
    job = a_job(stores.database)
    stores.database.run(jobs.cancel(job.id, job.account_id))
    execute(stores, "update outbox set done_at = now() returning id")
    an_ended_job(stores, stores.database.run(retention.now()) - 60 * DAY)
    execute(stores, "update outbox set done_at = now() - interval '60 days' where done_at is null returning id")
    assert apply(stores, [rule_of("outbox")]).count == 2
    assert stores.database.run(invariants.broken()) == []
    execute(stores, "delete from outbox returning id")
    assert stores.database.run(invariants.broken()) == [f"job {job.id} ended without an event"]


def test_an_idempotency_key_works_again_when_it_is_forgotten(stores: Stores) -> None:
    account = an_account(stores.database)

    def response(text: str) -> Script[str]:
        yield from ()
        return text

    def ask(text: str) -> str:
        return stores.database.run(idempotency.once(account, "key", "hash", response(text)))

    assert (ask("first"), ask("second")) == ("first", "first")
    execute(stores, "update idempotency_keys set created_at = now() - interval '25 hours' returning key")
    apply(stores, [rule_of("idempotency_keys")])
    assert ask("third") == "third"


def test_a_set_of_class_images_goes_when_no_job_asked_for_it_and_comes_again(stores: Stores) -> None:
    insert = (
        "insert into sampled_sets (recipe_hash, recipe, images, used_at) values (%(key)s, '{}', 1, now() - %(age)s)"
    )
    for key, days in (("old", 366), ("young", 364)):
        execute(stores, insert + " returning 1", key=key, age=days * DAY)
        image = sampled_sets.SampledImage(position=0, sha256=key, size=1)
        stores.database.run(sampled_sets.put_batch(key, [image]))
    assert apply(stores, [rule_of("sampled_sets")]).count == 1
    assert [row["recipe_hash"] for row in execute(stores, "select recipe_hash from sampled_images")] == ["young"]
    assert size(stores, "sampled_sets") == 1


def test_the_flow_says_what_went(
    stores: Stores, environment: dict[str, str], prefect: SyncPrefectClient,
    mlflow_settings: MlflowSettings,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("DARKROOM_MLFLOW__URL", mlflow_settings.url)
    monkeypatch.setenv("DARKROOM_MLFLOW__AUTH", mlflow_settings.auth.get_secret_value())
    events(stores, 7, 40 * DAY)
    assert apply_retention() == 7
    [table] = [shown for shown in prefect.read_artifacts() if shown.key == APPLY_RETENTION]
    row = next(row for row in json.loads(str(table.data)) if row["what"] == rule_of("outbox").what)
    assert (row["deleted"], row["setting"]) == (7, "DARKROOM_RETENTION__OUTBOX_DAYS=30")


def test_the_experiments_of_untagged_runs_are_named_after_our_flows() -> None:
    deployments = yaml.safe_load((DOCUMENT.parents[2] / "prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} >= UNTAGGED_EXPERIMENTS
