"""Retention on a whole platform: the flow as it is deployed, every folder with a rule, and a year of rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.local.platform import parts_of
from deployments.local.servers.postgres import EmbeddedPostgres
from flows.runs.flow_names import APPLY_RETENTION
from flows.runs.orchestrator import open_prefect
from flows.upkeep.retention.retention import apply
from flows.upkeep.retention.retention_rules import folder_rules, table_rules
from storage.stores import open_stores
from tests.deployments.platform import Platform
from tests.faults.bench import Bench

EVENTS = int(os.environ.get("SOAK_EVENTS", "10000000"))
FLOW_RUNS = int(os.environ.get("SOAK_FLOW_RUNS", "1000000"))
# An hour later than the settings: rows go on to grow old while it is looked.
OLD_EVENTS = "select count(*) from outbox where done_at < now() - interval '30 days 1 hour'"
OLD_FLOW_RUNS = "select count(*) from flow_run where end_time < now() - interval '90 days 1 hour'"
OLD_LOGS = "select count(*) from log where timestamp < now() - interval '90 days 1 hour'"
VACUUM = """
import asyncio
from prefect.server.database import provide_database_interface
from prefect.server.services.db_vacuum import vacuum_old_flow_runs
asyncio.run(vacuum_old_flow_runs(db=provide_database_interface()))
"""
OF_THIS_TEST = "test-up.log"


def places(folder: Path) -> Iterator[str]:
    """What stands in a data folder, and in its cache one level deeper."""
    for entry in folder.iterdir():
        if entry.name == "cache":
            yield from (f"cache/{inner.name}" for inner in entry.iterdir())
        elif entry.name != OF_THIS_TEST:
            yield entry.name


def run_flow(platform: Platform) -> dict[str, dict[str, Any]]:
    """Run the deployed flow; returns its table, by what each line is of."""
    with open_prefect(platform.settings.prefect) as client:
        deployment = client.read_deployment_by_name(f"{APPLY_RETENTION}/{APPLY_RETENTION}")
        run = client.create_flow_run_from_deployment(deployment.id, name="asked-for")
        deadline = time.monotonic() + 240
        while not (state := client.read_flow_run(run.id).state) or not state.is_final():
            assert time.monotonic() < deadline, state
            time.sleep(0.3)
        assert state.is_completed(), state
        return table_of(client, run.id)


def table_of(client: SyncPrefectClient, run_id: UUID) -> dict[str, dict[str, Any]]:
    """The table that a run left."""
    [shown] = [each for each in client.read_artifacts() if each.flow_run_id == run_id]
    return {row["what"]: row for row in json.loads(str(shown.data))}


@pytest.mark.soak
def test_a_used_data_folder_has_a_rule_for_everything_and_the_deployed_flow_applies_them(
    bench: Bench, straight_job: str
) -> None:
    found = {place: len(folder_rules(place)) for place in places(bench.platform.folder)}
    assert {place: count for place, count in found.items() if count != 1} == {}
    assert "cache/base-models" in found
    table = run_flow(bench.platform)
    [rule] = table_rules("outbox")
    assert rule.what in table
    assert {row["note"] for row in table.values() if "Error" in str(row["note"])} == set()
    assert bench.faults() == []


@pytest.fixture
def lone_platform() -> Iterator[Platform]:
    """A platform that is started by the test; nothing of it is left."""
    platform = Platform(Path(tempfile.mkdtemp(prefix="dr-")))
    yield platform
    platform.kill_everything()
    shutil.rmtree(platform.folder, ignore_errors=True)


def start_seconds(platform: Platform) -> float:
    """How long a start takes until every part is healthy."""
    began = time.monotonic()
    platform.start()
    platform.wait_healthy()
    return time.monotonic() - began


def a_year_of_events(server: EmbeddedPostgres, count: int) -> None:
    """Events that had their effect, evenly over a year, without the triggers that announce each."""
    with psycopg.connect(server.url("darkroom"), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "insert into outbox (kind, subject, payload, created_at, done_at)"
            " select 'models.changed', 'models', '{\"model_ids\": [1], \"lane\": \"counts\"}',"
            "        now() - interval '365 days' * (1 - n::float8 / %(count)s),"
            "        now() - interval '365 days' * (1 - n::float8 / %(count)s)"
            "   from generate_series(1, %(count)s) n",
            {"count": count},
        )
        connection.execute("analyze outbox")


def a_year_of_flow_runs(server: EmbeddedPostgres, count: int) -> None:
    """Runs like one that there is, each with a line of log, ended evenly over a year."""
    with psycopg.connect(server.url("prefect"), autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "insert into flow_run select run.* from (select * from flow_run limit 1) model,"
            " generate_series(1, %(count)s) n,"
            " lateral (select now() - interval '365 days' * (1 - n::float8 / %(count)s) as ended) at,"
            " lateral jsonb_populate_record(model::flow_run, jsonb_build_object("
            "   'id', gen_random_uuid(), 'name', 'old-' || n, 'idempotency_key', null, 'state_id', null,"
            "   'state_type', 'COMPLETED', 'state_name', 'Completed', 'start_time', at.ended, 'end_time', at.ended,"
            "   'created', at.ended, 'updated', at.ended, 'parent_task_run_id', null)) run",
            {"count": count},
        )
        connection.execute(
            "insert into log (id, created, updated, name, level, flow_run_id, message, timestamp)"
            " select gen_random_uuid(), end_time, end_time, 'prefect.flow_runs', 20, id, 'done', end_time"
            "   from flow_run where name like 'old-%'"
        )
        connection.execute("analyze")


def vacuum(platform: Platform) -> None:
    """What Prefect's server does every hour, with its own settings, now."""
    [part] = [part for part in parts_of(platform.settings) if part.name == "prefect"]
    subprocess.run([sys.executable, "-c", VACUUM], env=dict(part.environment), check=True)


def number(url: str, statement: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_year_of_rows_levels_off_and_the_start_takes_no_longer(lone_platform: Platform) -> None:
    platform = lone_platform
    server = EmbeddedPostgres(platform.folder / "postgres")
    start_seconds(platform)
    platform.stop()
    fresh = start_seconds(platform)
    platform.stop()
    with server.serving():
        a_year_of_events(server, EVENTS)
        a_year_of_flow_runs(server, FLOW_RUNS)
    full = start_seconds(platform)
    with open_stores(platform.settings) as stores:
        began = time.monotonic()
        reports = [apply(stores, table_rules("outbox"))]
        while reports[-1].count:
            reports.append(apply(stores, table_rules("outbox")))
        took, gone = time.monotonic() - began, sum(report.count for report in reports)
    left = number(server.url("darkroom"), OLD_EVENTS)
    kept = number(server.url("darkroom"), "select count(*) from outbox")
    began = time.monotonic()
    vacuum(platform)
    vacuumed = time.monotonic() - began
    runs, logs = number(server.url("prefect"), OLD_FLOW_RUNS), number(server.url("prefect"), OLD_LOGS)
    platform.stop()
    after = start_seconds(platform)
    figures = (
        f"start: fresh {fresh:.1f} s, with a year {full:.1f} s, after retention {after:.1f} s; {gone:,} of {EVENTS:,} "
        f"events in {took:.0f} s ({gone / took:,.0f}/s), {kept:,} kept; of {FLOW_RUNS:,} flow runs {runs:,} old ones "
        f"left after {vacuumed:.0f} s ({FLOW_RUNS * 275 / 365 / vacuumed:,.0f}/s) and {logs:,} old lines of log"
    )
    sys.stdout.write(figures)  # pytest -s shows it
    assert left == 0, figures
    assert gone > EVENTS * 0.9, figures
    assert kept < EVENTS * 0.09 + 10_000, figures
    assert gone / took > 20 * EVENTS / (365 * 86400), figures
    assert (runs, logs) == (0, 0), figures
    assert FLOW_RUNS * 275 / 365 / vacuumed > 20 * FLOW_RUNS / (365 * 86400), figures
    assert max(full, after) <= fresh * 1.25 + 5, figures
