"""Every event reaches each of its readers once, and nobody who opted out, whatever dies in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from flows import drains
from flows.notifications import fan_out as fanning
from flows.notifications.messages import LONGEST_TEXT, LONGEST_TITLE, words
from flows.relay import Relay
from storage.postgres import catalog, in_app, jobs, notifications, outbox
from storage.records.catalog import NewVersion
from storage.records.jobs import JobFileRole
from storage.records.notifications import (
    Channel,
    Frequency,
    JobFailed,
    JobFinished,
    SampleReady,
    SystemNotice,
    VersionPublished,
)
from storage.settings import Settings
from tests.flows.notifications.conftest import NOTICE, Told
from tests.storage.makers import a_job

JOB = UUID(int=7)


def test_everybody_is_told_once_except_who_opted_out_or_is_banned(told: Told) -> None:
    first, second, quiet, banned = (told.reader(name) for name in ("first", "second", "quiet", "banned"))
    told.wants(quiet, "system", Channel.IN_APP, Frequency.NEVER)
    told.rows("update accounts set status = 'banned', ban_reason = 'spam' where number = %(n)s returning 1", n=banned)
    assert told.tell("maintenance")
    assert told.tell("maintenance") == []
    assert (told.fan_out(), told.fan_out()) == (1, 0)
    assert [len(told.list_of(reader)) for reader in (first, second, quiet, banned)] == [1, 1, 0, 0]
    assert told.rows("select distinct state from deliveries") == [{"state": "sent"}]


def test_chunks_end_where_the_readers_do(told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = told.readers(10)
    told.tell("to all")
    told.tell("to some", NOTICE, readers[2:7])
    whole = notifications.fan_out_chunk
    monkeypatch.setattr(notifications, "fan_out_chunk", lambda notification: whole(notification, limit=5))
    assert told.fan_out() == 2
    assert [len(told.list_of(reader)) for reader in readers] == [1, 1, 2, 2, 2, 2, 2, 1, 1, 1]
    lag = told.stores.database.run(notifications.lag())
    assert (lag.waiting, lag.failed) == (0, 0)


def test_a_fan_out_that_is_killed_between_chunks_goes_on_where_it_was(
    told: Told, settings: Settings, tmp_path: Path
) -> None:
    told.readers(12)
    told.tell("to all")
    program = (
        "from storage.settings import load_settings; from storage.stores import open_stores\n"
        "from flows.notifications.fan_out import fan_out; from storage.postgres import notifications\n"
        "notifications.fan_out_chunk.__defaults__ = (5,)\n"
        "with open_stores(load_settings()) as stores: fan_out(stores)"
    )
    environment = {
        **os.environ,
        "DARKROOM_DATA_FOLDER": str(settings.data_folder),
        "DARKROOM_POSTGRES__URL": settings.postgres.url.get_secret_value(),
        "DARKROOM_JOBS__CRASH_POINTS": json.dumps({"notification-chunk-written": f"die:{tmp_path / 'once'}"}),
    }
    killed = subprocess.run([sys.executable, "-c", program], env=environment, timeout=120)
    assert killed.returncode == -9
    assert told.rows("select count(*)::int as told from deliveries") == [{"told": 5}]
    assert told.fan_out() == 1
    assert told.rows("select count(distinct reader)::int as told from deliveries") == [{"told": 12}]


def test_a_notification_whose_words_fail_is_named_and_holds_up_no_other(told: Told) -> None:
    reader = told.reader("reader")
    told.rows("insert into notifications (key, type, audience) values ('odd', 'unheard_of', 'everyone') returning id")
    told.rows("insert into notifications (key, type, audience) values ('bare', 'system', 'everyone') returning id")
    told.tell("good")
    assert told.fan_out() == 3
    assert [one.title for one in told.list_of(reader)] == [NOTICE.title]
    failed = told.stores.database.run(notifications.failed())
    assert [one.key for one in failed] == ["bare", "odd"]
    assert "unheard_of" in failed[1].error
    assert told.stores.database.run(notifications.lag()).failed == 2


def test_a_reader_sees_ids_in_the_order_in_which_they_can_be_seen(told: Told, settings: Settings) -> None:
    """A stream that remembers the last id must miss none: a second writer waits for the first one's commit."""
    reader = told.reader("reader")
    told.tell("first")
    [notification] = [told.stores.database.run(notifications.waiting())]
    assert notification is not None
    script = notifications.fan_out_chunk(notification)
    with psycopg.connect(settings.postgres.url.get_secret_value(), row_factory=dict_row) as other:
        query = next(script)
        other.execute(query.statement, query.parameters)  # type: ignore[arg-type]
        held = "select pg_try_advisory_xact_lock(%(lock)s) as free"
        assert told.rows(held, **query.parameters) == [{"free": False}]
    assert told.fan_out() == 1
    assert told.stores.database.run(in_app.newest(reader)) == told.list_of(reader)[0].id


def test_the_owner_of_a_job_is_told_of_its_end(told: Told) -> None:
    database = told.stores.database
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, None))
    database.run(jobs.fail(job.id, 1, "out_of_memory", "The process reached its memory limit."))
    take_events(told)
    assert told.fan_out() == 1
    [found] = told.list_of(told.reader("owner"))
    assert (found.type, found.title) == ("job_failed", "Your fine-tune failed")
    assert "memory limit" in found.text
    assert found.path == f"/api/v1/training-jobs/{job.id}"


def test_the_owner_of_a_published_version_is_told_of_it_by_name(told: Told) -> None:
    database = told.stores.database
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, None))
    new = NewVersion(
        model_name="My mug", base_model="SD 1.5", trained_words=("sks",), recipe={}, evaluation=None, files=()
    )
    version = database.run(catalog.publish(job.id, 1, new))
    take_events(told)
    told.fan_out()
    found = told.list_of(told.reader("owner"))
    assert {one.title for one in found} == {"Your model My mug is ready", f"owner published My mug {version.name}"}


def test_samples_are_told_only_to_who_asked(told: Told) -> None:
    database = told.stores.database
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, None))
    for step in (1, 2):
        database.run(
            jobs.put_file(
                job.id,
                1,
                name=f"{step}.png",
                role=JobFileRole.SAMPLE,
                sha256="0" * 64,
                size=1,
                media_type="a/b",
                step=step,
            )
        )
        take_events(told)
        told.wants(told.reader("owner"), "sample_ready", Channel.IN_APP, Frequency.NOW)
    told.fan_out()
    assert [one.title for one in told.list_of(told.reader("owner"))] == ["A sample of step 2 is ready"]
    assert told.rows("select count(*)::int as kept from notifications") == [{"kept": 1}]


def take_events(told: Told) -> None:
    """What the relay does with events that are told, each twice; Prefect is not needed for it."""
    relay = Relay(told.stores, None)  # type: ignore[arg-type]
    told.rows("update outbox set done_at = now() where kind = 'job.submitted' returning id")
    for row in told.stores.database.run(outbox.claim(100)):
        relay.effect(row.event())
        relay.effect(row.event())
        told.stores.database.run(outbox.done(row.id))


def test_words_stay_short_and_on_one_line() -> None:
    contents = [
        JobFinished(job_id=JOB, job_kind="training", model_id=1, model_name="My\nmug"),
        JobFinished(job_id=JOB, job_kind="generation"),
        JobFailed(job_id=JOB, job_kind="training", reason="x" * 5000),
        SampleReady(job_id=JOB, name="a.png", step=3),
        VersionPublished(model_id=1, model_name="m" * 300, model_version_id=2, version_name="v1", by="owner"),
        SystemNotice(title="T" * 400, text="text"),
    ]
    for content in contents:
        said = words(content)
        assert 0 < len(said.title) <= LONGEST_TITLE
        assert 0 < len(said.text) <= LONGEST_TEXT
        assert "\n" not in said.title
        assert said.path.startswith("/api/v1/") or not said.path


def test_the_flow_does_it_as_prefect_runs_it(
    told: Told, settings: Settings, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(settings.data_folder))
    monkeypatch.setenv("DARKROOM_POSTGRES__URL", settings.postgres.url.get_secret_value())
    monkeypatch.setattr(drains, "IDLE_SECONDS", 0.1)
    told.reader("reader")
    told.tell("to all")
    number = told.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT))
    assert number is not None
    assert fanning.fan_out_notifications() == 1
    assert told.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) is None
    told.tell("again")
    assert told.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) == number + 1
    with told.stores.database.session_lock(fanning.FAN_OUT):
        assert told.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) is None
        assert fanning.fan_out_notifications() == 0
