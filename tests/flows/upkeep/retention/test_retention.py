"""What is old goes in small steps, what is not stays, and every table and folder has a rule that says so."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from pydantic import SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from flows.generation.images import generate_images
from flows.jobs.tracking import JOB_TAG, tracking_client
from flows.runs.flow_names import APPLY_RETENTION
from flows.runs.light_tracking import FLOW_TAG, UNTAGGED_EXPERIMENTS
from flows.upkeep.retention import sweep as sweeping
from flows.upkeep.retention.folder_rules import folders_to_oneself
from flows.upkeep.retention.retention import apply, apply_retention, tidy_folders
from flows.upkeep.retention.retention_rules import RULES, RetentionRule, document, table_rules, variable
from flows.upkeep.retention.sweep import ClockJumped
from flows.upkeep.retention.tracking_runs import MARK
from storage.errors import InvalidSettings
from storage.postgres.accounts import idempotency
from storage.postgres.connection import Query, Script
from storage.postgres.jobs import jobs, sampled_sets
from storage.postgres.upkeep import invariants, pauses, retention
from storage.records.jobs.jobs import JobState
from storage.records.metrics.freshness import Switch
from storage.records.metrics.leaderboards import RANK
from storage.settings import MlflowSettings, RetentionSettings, load_settings
from storage.stores import Stores
from tests.files import unused_for
from tests.storage.blobs.test_walks import churned
from tests.storage.makers import a_bare_generation, a_job, an_account

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


def test_every_table_has_one_rule_and_every_rule_a_table(stores: Stores) -> None:
    tables = stores.database.run(retention.tables())
    assert {table: len(table_rules(table)) for table in tables if len(table_rules(table)) != 1} == {}
    named = {pattern for rule in RULES for pattern in rule.tables if "*" not in pattern}
    assert named <= set(tables)


def test_the_document_holds_the_table() -> None:
    assert "\n".join(document()) in DOCUMENT.read_text()


def test_every_setting_of_a_rule_is_one_and_every_setting_has_a_rule() -> None:
    settings = load_settings()
    for rule in RULES:
        if rule.setting:
            group, name = rule.setting.split(".")
            assert hasattr(getattr(settings, group), name), rule.setting
    used = {rule.setting.removeprefix("retention.") for rule in RULES}
    assert set(RetentionSettings.model_fields) - {"mlflow_store_url"} <= used


@pytest.mark.parametrize("name", [name for name in RetentionSettings.model_fields if name != "mlflow_store_url"])
def test_a_setting_of_0_is_refused_with_what_to_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in ("0", "-1"):
        monkeypatch.setenv(variable(f"retention.{name}"), wrong)
        large = "set 36500 days" if name.endswith("_days") else f"set more {name[-3:]} than the disk has"
        with pytest.raises(InvalidSettings, match=rf"(?i){name.upper()}: it is {wrong}, and the least is .*{large}"):
            load_settings()


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
    "job_checkpoints": "insert into job_checkpoints (job_id, step, sha256, size)"
    " select id, coalesce((select max(step) from job_checkpoints), 0) + 1, '', 1 from jobs where ended_at = %(at)s",
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
    "job_checkpoints": 90,
}
"""Days that the rows of each table are kept."""


def an_ended_job(stores: Stores, at: datetime) -> None:
    """A job that was cancelled at a time."""
    job = a_job(stores.database)
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
        if table == "job_checkpoints":
            an_ended_job(stores, now - age)
        execute(stores, OLD_ROWS[table] + " returning 1", at=now - age, account=account)
    before = size(stores, table)
    report = apply(stores, [rule_of(table)])
    assert (report.faults, report.count) == ([], 2)
    assert size(stores, table) == before - 2
    assert apply(stores, [rule_of(table)]).count == 0


def test_an_event_that_waits_stays_however_old(stores: Stores) -> None:
    events(stores, 3, timedelta(days=400), done=False)
    assert apply(stores, [rule_of("outbox")]).count == 0
    assert size(stores, "outbox") == 3


def test_many_rows_go_in_batches_and_a_run_that_is_stopped_is_gone_on_with(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweeping, "BATCH", 100)
    events(stores, 450, 40 * DAY)
    batches: list[int] = []
    delete = retention.delete_batch

    def counted(table: str, before: datetime, limit: int) -> object:
        batches.append(limit)
        if len(batches) == 3:
            raise RuntimeError("the process dies here")
        return delete(table, before, limit)

    monkeypatch.setattr(retention, "delete_batch", counted)
    assert "the process dies here" in apply(stores, [rule_of("outbox")]).faults[0]
    assert size(stores, "outbox") == 250
    assert apply(stores, [rule_of("outbox")]).count == 250
    assert len(batches) == 6


def test_a_paused_flow_and_one_whose_time_is_over_stop_between_batches(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(stores, 5, 40 * DAY)
    late = apply(stores, [rule_of("outbox")], seconds=-1)
    assert (late.count, late.faults) == (0, [])
    stores.database.run(pauses.add(APPLY_RETENTION, Switch.DARKROOM))
    paused = apply(stores, RULES)
    assert (paused.count, paused.done[-1][1].note) == (0, "stopped here: it is paused")
    stores.database.run(pauses.remove(APPLY_RETENTION))
    assert apply(stores, [rule_of("outbox")]).count == 5


def test_a_long_backlog_holds_up_no_rule_behind_it_and_takes_the_time_that_they_leave(stores: Stores) -> None:
    def endless(sweep: sweeping.Sweep) -> None:
        while True:
            sweep.check()
            sweep.removed.count += 1
            time.sleep(0.01)

    events(stores, 5, 40 * DAY)
    began = time.monotonic()
    backlogs = [RetentionRule(f"backlog {number}", "", work=endless) for number in range(2)]
    report = apply(stores, [*backlogs, rule_of("outbox")], seconds=3)
    assert time.monotonic() - began >= 3
    assert [rule.what for rule, _, _ in report.done] == ["backlog 0", "backlog 1", rule_of("outbox").what]
    (first, second, outbox) = (removed for _, removed, _ in report.done)
    assert first.note == second.note == "stopped here: its time was over"
    assert min(first.count, second.count) > 20
    assert (outbox.count, outbox.note) == (5, "")


def shifted(monkeypatch: pytest.MonkeyPatch, by: Callable[[int], timedelta]) -> None:
    """Postgres' clock, shifted by what `by` says of how often it was asked before."""
    asked: list[None] = []

    def now() -> Query[datetime]:
        asked.append(None)
        return Query("select now() + %(by)s as now", {"by": by(len(asked) - 1)}, lambda rows: rows[0]["now"])

    monkeypatch.setattr(retention, "now", now)


def test_a_clock_that_jumps_back_a_day_meanwhile_deletes_nothing_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    events(stores, 5, 40 * DAY)
    monkeypatch.setattr(sweeping, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(sweeping, "BATCH", 2)
    shifted(monkeypatch, lambda asked: timedelta(0) if asked < 4 else -DAY)
    report = apply(stores)
    assert report.count == 2
    assert "Postgres' clock moved by" in report.faults[0]
    assert size(stores, "outbox") == 3


@pytest.mark.parametrize("days", [-1, 400])
def test_nothing_is_deleted_while_two_clocks_disagree(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    events(stores, 5, 40 * DAY)
    events(stores, 5, timedelta(0))
    shifted(monkeypatch, lambda _: days * DAY)
    with pytest.raises(ClockJumped, match=r"apart\. Nothing was deleted"):
        apply(stores)
    assert size(stores, "outbox") == 10


def test_a_clock_that_went_back_since_the_last_run_deletes_nothing_that_is_kept(stores: Stores) -> None:
    """As after the jump: what was done "tomorrow" is young."""
    events(stores, 5, -DAY)
    events(stores, 5, 29 * DAY)
    assert apply(stores, [rule_of("outbox")]).count == 0


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

    def answer(text: str) -> Script[str]:
        yield from ()
        return text

    def ask(text: str) -> str:
        return stores.database.run(idempotency.once(account, "key", "hash", answer(text)))

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


def test_working_folders_of_jobs_that_ended_go_and_those_of_others_stay(stores: Stores) -> None:
    waits, work = a_job(stores.database), stores.settings.data_folder / "work"
    ended = a_job(stores.database)
    stores.database.run(jobs.cancel(ended.id, ended.account_id))
    names = {"waits": str(waits.id), "ended": str(ended.id), "unknown": str(uuid4()), "young": str(uuid4())}
    for what, name in names.items():
        (work / name).mkdir(parents=True)
        (work / name / "state").write_bytes(b"x" * 100)
        for path in (work / name / "state", work / name):
            if what != "young":
                unused_for(path, 8 * 86400)
    [rule] = [rule for rule in RULES if rule.folders == ("work",)]
    report = apply(stores, [rule])
    assert (report.count, report.size) == (2, 200)
    assert {path.name for path in work.iterdir()} == {names["waits"], names["young"]}


def a_leftover(stores: Stores) -> Path:
    """The working folder of a job that nobody knows, long after its flow died."""
    folder = stores.settings.data_folder / "work" / str(uuid4())
    folder.mkdir(parents=True)
    unused_for(folder, 8 * 86400)
    return folder


def test_where_jobs_end_the_folders_of_that_machine_are_tidied_once_an_hour_and_no_row_is_touched(
    stores: Stores,
) -> None:
    events(stores, 3, 40 * DAY)
    first, lock = a_leftover(stores), stores.settings.data_folder / "run" / "folder-rules.lock"
    tidy_folders(stores)
    assert not first.exists()
    assert size(stores, "outbox") == 3

    second = a_leftover(stores)
    tidy_folders(stores)
    assert second.exists(), "it was done this hour"
    unused_for(lock, 3601)
    tidy_folders(stores)
    assert not second.exists()


def test_two_processes_of_one_machine_do_not_tidy_at_once(stores: Stores) -> None:
    left = a_leftover(stores)
    with folders_to_oneself(stores.settings.data_folder) as first:
        assert first
        tidy_folders(stores)
        with folders_to_oneself(stores.settings.data_folder) as second:
            assert not second
    assert left.exists()


def test_a_job_that_has_ended_does_not_fail_for_folders_that_cannot_be_tidied(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = a_leftover(stores)
    monkeypatch.setattr(sweeping, "CLOCKS_APART", timedelta(seconds=-1))
    tidy_folders(stores)
    assert left.exists()


def test_a_generation_that_ends_tidies_its_machine(
    stores: Stores, environment: dict[str, str], prefect: SyncPrefectClient
) -> None:
    job = a_bare_generation(stores.database)
    left = a_leftover(stores)

    generate_images(job.id, 1, return_state=True)

    assert stores.database.run(jobs.get(job.id)).state is JobState.FAILED
    assert not left.exists()


def test_a_job_that_writes_and_deletes_in_its_folder_meanwhile_is_no_fault(stores: Stores) -> None:
    job, work = a_job(stores.database), stores.settings.data_folder / "work"
    rules = [rule for rule in RULES if rule.folders == ("work",)]
    with churned(work / str(job.id)), churned(work / "of-no-job"):
        for _ in range(30):
            assert apply(stores, rules).faults == []
    assert (work / "of-no-job").exists()


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


def a_copy(stores: Stores, name: str, mebibytes: int, idle: float) -> Path:
    """A folder of the cache that was used so many seconds ago."""
    folder = stores.cache_folder / "base-models" / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"\0" * mebibytes * 1024**2)
    unused_for(folder, idle)
    return folder


def test_copies_of_models_go_by_size_the_longest_unused_first_and_never_one_in_use(stores: Stores) -> None:
    [rule] = [rule for rule in RULES if "cache/base-models" in rule.folders]
    copies = {name: a_copy(stores, name, 3, idle) for name, idle in (("used", 900), ("old", 800), ("a", 20), ("b", 10))}
    stores.settings.retention = RetentionSettings(base_model_cache_gib=7 / 1024)
    with use_of(copies["used"]):
        report = apply(stores, [rule])
    assert {name for name, folder in copies.items() if folder.exists()} == {"used", "b"}
    assert (report.count, report.size) == (2, 6 * 1024**2)
    stores.settings.retention = RetentionSettings()
    assert apply(stores, [rule]).count == 0


@contextmanager
def use_of(folder: Path) -> Iterator[None]:
    """Use a folder of the cache as a flow does."""
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    yield
    os.close(descriptor)


@pytest.fixture
def tracking(stores: Stores, mlflow_settings: MlflowSettings, postgres_server: EmbeddedPostgres) -> MlflowClient:
    """MLflow's client, with stores that reach its database."""
    store = postgres_server.url("mlflow").replace("postgresql://", "postgresql+psycopg://")
    stores.settings.mlflow = mlflow_settings
    stores.settings.retention = RetentionSettings(mlflow_store_url=SecretStr(store))
    return tracking_client(stores.settings)


def a_tracking_run(client: MlflowClient, experiment: str, name: str, tags: dict[str, str], days: int = 91) -> str:
    """A run with a figure and a file, that ended so many days ago."""
    run_id = str(client.create_run(experiment, tags=tags, run_name=name).info.run_id)
    client.log_metric(run_id, "rows", 1.0)
    client.log_text(run_id, "rows", "rows.txt")
    client.set_terminated(run_id, end_time=int((time.time() - days * 86400) * 1000))
    return run_id


def names_of(client: MlflowClient, experiment: str) -> set[str]:
    """Of every run that MLflow has, deleted or not."""
    return {str(run.info.run_name) for run in client.search_runs([experiment], run_view_type=ViewType.ALL)}


def test_old_tracking_runs_of_flows_are_erased_and_those_of_jobs_stay(stores: Stores, tracking: MlflowClient) -> None:
    experiment = tracking.create_experiment(f"a flow {uuid4()}")
    a_tracking_run(tracking, experiment, "old", {FLOW_TAG: "a flow"})
    a_tracking_run(tracking, experiment, "of a job", {JOB_TAG: "1", FLOW_TAG: "a flow"})
    a_tracking_run(tracking, experiment, "young", {FLOW_TAG: "a flow"}, days=89)
    tracking.create_run(experiment, run_name="running")
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    report = apply(stores, [rule])
    assert report.faults == []
    assert report.count >= 1
    assert names_of(tracking, experiment) == {"of a job", "young", "running"}
    stores.settings.mlflow = MlflowSettings(url="http://127.0.0.1:9")
    unreachable = apply(stores, [rule])
    assert (unreachable.count, unreachable.faults) == (0, [])
    assert "did not answer" in unreachable.done[0][1].note


def test_what_somebody_else_deleted_in_mlflow_is_not_erased(stores: Stores, tracking: MlflowClient) -> None:
    experiment, gone = (tracking.create_experiment(f"{name} {uuid4()}") for name in ("a flow", "deleted by hand"))
    a_tracking_run(tracking, experiment, "old", {FLOW_TAG: "a flow"})
    tracking.delete_run(a_tracking_run(tracking, experiment, "of a job, by hand", {JOB_TAG: "1"}))
    tracking.delete_run(a_tracking_run(tracking, experiment, "by hand", {}))
    tracking.delete_run(a_tracking_run(tracking, experiment, "of a job, marked", {JOB_TAG: "1", MARK: "deleted"}))
    kept = a_tracking_run(tracking, gone, "in a deleted experiment", {})
    tracking.delete_experiment(gone)
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    assert apply(stores, [rule]).faults == []
    assert names_of(tracking, experiment) == {"of a job, by hand", "by hand", "of a job, marked"}
    tracking.restore_experiment(gone)
    assert names_of(tracking, gone) == {"in a deleted experiment"}
    assert [file.path for file in tracking.list_artifacts(kept)] == ["rows.txt"]


def test_a_tracking_run_of_somebody_else_stays_and_one_of_a_flow_from_before_it_was_tagged_goes(
    stores: Stores, tracking: MlflowClient
) -> None:
    theirs = tracking.create_experiment(f"a trial of mine {uuid4()}")
    found = tracking.get_experiment_by_name(RANK)
    ranked = str(found.experiment_id) if found else tracking.create_experiment(RANK)
    name = str(uuid4())
    a_tracking_run(tracking, theirs, "theirs", {})
    a_tracking_run(tracking, ranked, name, {})
    [rule] = [rule for rule in RULES if "mlflow" in rule.folders]
    assert apply(stores, [rule]).faults == []
    assert names_of(tracking, theirs) == {"theirs"}
    assert name not in names_of(tracking, ranked)


def test_the_experiments_of_untagged_runs_are_named_after_our_flows() -> None:
    deployments = yaml.safe_load((DOCUMENT.parents[2] / "prefect.yaml").read_text())["deployments"]
    assert {deployment["name"] for deployment in deployments} >= UNTAGGED_EXPERIMENTS
