"""Every event reaches each of its readers once, and nobody who opted out, whatever dies in between."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import psycopg
import pytest
from mlflow.tracking import MlflowClient
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from flows.notifications import fan_out as fanning
from flows.notifications.deliver import deliver_notifications
from flows.notifications.messages import MAX_TEXT, MAX_TITLE, text_of
from flows.runs import draining_flows
from flows.runs.flow_names import DELIVER
from storage.postgres.accounts import accounts
from storage.postgres.events import outbox
from storage.postgres.jobs import job_files, jobs
from storage.postgres.notifications import deliveries, in_app, notifications
from storage.postgres.social import social
from storage.postgres.upkeep import alerts, pauses
from storage.records.accounts.accounts import Role
from storage.records.jobs.jobs import JobFileRole
from storage.records.metrics.freshness import Switch
from storage.records.notifications.channels import Channel
from storage.records.notifications.notifications import (
    TYPES,
    Commented,
    DownloadMilestone,
    Frequency,
    JobFailedNotice,
    JobFinished,
    Mentioned,
    NewFollower,
    ReactionMilestone,
    SampleReadyNotice,
    SystemNotice,
    VersionPublished,
)
from storage.records.policy.viewers import viewer_of
from storage.records.social.social import Subject
from storage.settings import MlflowSettings, Settings
from tests.flows.notifications.conftest import NOTICE, Notifier
from tests.no_prefect import effects_without_prefect
from tests.storage.makers import a_job, a_published_model, an_account

JOB = UUID(int=7)


def test_everybody_is_told_once_except_who_opted_out_or_is_banned(notifier: Notifier) -> None:
    first, second, quiet, banned = (notifier.reader(name) for name in ("first", "second", "quiet", "banned"))
    notifier.wants(quiet, "system", Channel.IN_APP, Frequency.NEVER)
    notifier.rows(
        "update accounts set status = 'banned', ban_reason = 'spam' where number = %(n)s returning 1", n=banned
    )
    assert notifier.notify("maintenance")
    assert notifier.notify("maintenance") == []
    assert (notifier.fan_out(), notifier.fan_out()) == (1, 0)
    assert [len(notifier.list_of(reader)) for reader in (first, second, quiet, banned)] == [1, 1, 0, 0]
    assert notifier.rows("select distinct state from deliveries") == [{"state": "sent"}]


def test_chunks_end_where_the_readers_do(notifier: Notifier, monkeypatch: pytest.MonkeyPatch) -> None:
    readers = notifier.readers(10)
    notifier.notify("to all")
    notifier.notify("to some", NOTICE, readers[2:7])
    whole = notifications.fan_out_chunk
    monkeypatch.setattr(notifications, "fan_out_chunk", lambda notification: whole(notification, limit=5))
    assert notifier.fan_out() == 2
    assert [len(notifier.list_of(reader)) for reader in readers] == [1, 1, 2, 2, 2, 2, 2, 1, 1, 1]
    lag = notifier.stores.database.run(notifications.lag())
    assert (lag.waiting, lag.failed) == (0, 0)


def test_a_fan_out_that_is_killed_between_chunks_goes_on_where_it_was(
    notifier: Notifier, environment: dict[str, str], tmp_path: Path
) -> None:
    notifier.readers(12)
    notifier.notify("to all")
    program = (
        "from storage.settings import load_settings; from storage.stores import open_stores\n"
        "from flows.notifications.fan_out import fan_out; from storage.postgres.notifications import notifications\n"
        "notifications.fan_out_chunk.__defaults__ = (5,)\n"
        "with open_stores(load_settings()) as stores: fan_out(stores)"
    )
    environment["DARKROOM_JOBS__CRASH_POINTS"] = json.dumps({"notification-chunk-written": f"die:{tmp_path / 'once'}"})
    killed = subprocess.run([sys.executable, "-c", program], env=environment, timeout=120)
    assert killed.returncode == -9
    assert notifier.rows("select count(*)::int as told from deliveries") == [{"told": 5}]
    assert notifier.fan_out() == 1
    assert notifier.rows("select count(distinct reader)::int as told from deliveries") == [{"told": 12}]


def test_a_notification_whose_words_fail_is_named_and_holds_up_no_other(notifier: Notifier) -> None:
    reader = notifier.reader("reader")
    notifier.rows(
        "insert into notifications (key, type, audience) values ('odd', 'unheard_of', 'everyone') returning id"
    )
    notifier.rows("insert into notifications (key, type, audience) values ('bare', 'system', 'everyone') returning id")
    notifier.notify("good")
    assert notifier.fan_out() == 3
    assert [one.title for one in notifier.list_of(reader)] == [NOTICE.title]
    failed = notifier.stores.database.run(notifications.failed())
    assert [one.key for one in failed] == ["bare", "odd"]
    assert "unheard_of" in failed[1].error
    assert notifier.stores.database.run(notifications.lag()).failed == 2


def test_a_reader_sees_ids_in_the_order_in_which_they_can_be_seen(notifier: Notifier, settings: Settings) -> None:
    """A stream that remembers the last id must miss none: a second writer waits for the first one's commit."""
    reader = notifier.reader("reader")
    notifier.notify("first")
    [notification] = [notifier.stores.database.run(notifications.waiting())]
    assert notification is not None
    script = notifications.fan_out_chunk(notification)
    with psycopg.connect(settings.postgres.url.get_secret_value()) as other:
        query = next(script)
        other.execute(query.statement.encode(), query.parameters)
        held = "select pg_try_advisory_xact_lock(%(lock)s) as free"
        assert notifier.rows(held, **query.parameters) == [{"free": False}]
    assert notifier.fan_out() == 1
    assert notifier.stores.database.run(in_app.newest(reader)) == notifier.list_of(reader)[0].id


def test_the_owner_of_a_job_is_told_of_its_end(notifier: Notifier) -> None:
    database = notifier.stores.database
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, None))
    database.run(jobs.fail(job.id, 1, "out_of_memory", "The process reached its memory limit."))
    take_events(notifier)
    assert notifier.fan_out() == 1
    [found] = notifier.list_of(notifier.reader("owner"))
    assert (found.type, found.title) == ("job_failed", "Your fine-tune failed")
    assert "memory limit" in found.text
    assert found.path == f"/api/v1/training-jobs/{job.id}"


def test_followers_are_told_of_a_new_public_version_once_however_it_was_published(notifier: Notifier) -> None:
    database = notifier.stores.database
    owner = an_account(database)
    fan, stranger = notifier.reader("fan"), notifier.reader("stranger")
    follow(notifier, "fan", "owner")
    a_published_model(database, owner, "unseen", availability="Private")
    model = a_published_model(database, owner, "My mug")
    take_events(notifier)
    notifier.rows("update models set description = 'changed' where id = %(id)s returning id", id=model.id)
    take_events(notifier)
    notifier.fan_out()
    titles = [one.title for one in notifier.list_of(fan) if one.type == "version_published"]
    assert titles == ["owner published My mug v1"]
    assert notifier.list_of(stranger) == []


def test_a_new_follower_is_told_once_however_often_it_follows(notifier: Notifier) -> None:
    owner = notifier.reader("owner")
    for _ in range(2):
        follow(notifier, "fan", "owner")
        take_events(notifier)
        fan = notifier.stores.database.run(accounts.ensure_account("fan"))
        notifier.stores.database.run(social.unfollow(fan.id, owner))
        take_events(notifier)
    notifier.fan_out()
    assert [one.title for one in notifier.list_of(owner)] == ["fan follows you"]


def test_of_a_comment_each_is_told_the_most_specific_thing_alone(notifier: Notifier) -> None:
    database = notifier.stores.database
    owner, ann, bob = (database.run(accounts.ensure_account(name)) for name in ("owner", "ann", "bob"))
    model = a_published_model(database, owner.id, "My mug")
    first = database.run(social.comment(viewer_of(ann), ann.id, Subject.MODEL, model.id, "Nice, @owner!"))
    database.run(social.comment(viewer_of(bob), bob.id, Subject.MODEL, model.id, "Indeed.", first.id))
    database.run(social.comment(viewer_of(owner), owner.id, Subject.MODEL, model.id, "Thanks @owner"))
    take_events(notifier)
    notifier.fan_out()
    assert [one.title for one in notifier.list_of(owner.number)] == [
        "bob commented on My mug",
        "ann mentioned you on My mug",
    ]
    assert [(one.type, one.text) for one in notifier.list_of(ann.number)] == [("comment", "Indeed.")]
    assert notifier.list_of(bob.number) == []


def test_an_owner_is_told_of_the_highest_milestone_alone_and_once(notifier: Notifier) -> None:
    database = notifier.stores.database
    owner = an_account(database)
    model = a_published_model(database, owner, "My mug")
    for downloads, thumbs in ((9, 3), (612, 9), (613, 10)):
        notifier.rows(
            "insert into model_stats (model_id, download_count, thumbs_up_count) values (%(id)s, %(d)s, %(t)s)"
            " on conflict (model_id) do update set download_count = %(d)s, thumbs_up_count = %(t)s returning 1",
            id=model.id,
            d=downloads,
            t=thumbs,
        )
        take_events(notifier)
    notifier.fan_out()
    titles = [one.title for one in notifier.list_of(notifier.reader("owner"))]
    assert titles == ["My mug has 10 thumbs up", "My mug was downloaded 500 times"]


def test_moderators_are_told_of_an_alarm_when_it_is_raised_and_once(notifier: Notifier) -> None:
    database = notifier.stores.database
    keeper = database.run(accounts.ensure_account("keeper", Role.MODERATOR)).number
    creator = notifier.reader("creator")
    later = datetime.now(UTC) + timedelta(days=3)
    raised = database.run(alerts.update(later, 900)).raised
    assert raised
    assert database.run(alerts.update(later, 900)).raised == {}
    notifier.fan_out()
    assert {(one.title, one.text) for one in notifier.list_of(keeper)} == {
        (f"Alert: {name}", detail) for name, detail in raised.items()
    }
    assert len(notifier.list_of(keeper)) == len(raised)
    assert notifier.list_of(creator) == []


def follow(notifier: Notifier, who: str, whom: str) -> None:
    """Have one account follow another."""
    follower = notifier.stores.database.run(accounts.ensure_account(who))
    notifier.stores.database.run(social.follow(follower.id, notifier.reader(whom)))


def test_samples_are_told_only_to_who_asked(notifier: Notifier) -> None:
    database = notifier.stores.database
    job = a_job(database)
    database.run(jobs.claim(job.id, 1, None))
    for step in (1, 2):
        database.run(
            job_files.put_file(
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
        take_events(notifier)
        notifier.wants(notifier.reader("owner"), "sample_ready", Channel.IN_APP, Frequency.NOW)
    notifier.fan_out()
    assert [one.title for one in notifier.list_of(notifier.reader("owner"))] == ["A sample of step 2 is ready"]
    assert notifier.rows("select count(*)::int as kept from notifications") == [{"kept": 1}]


def take_events(notifier: Notifier) -> None:
    """What the relay does with events that somebody is notified of, each twice; Prefect is not needed for it."""
    effects = effects_without_prefect(notifier.stores)
    notifier.rows("update outbox set done_at = now() where kind = 'job.submitted' returning id")
    while rows := notifier.stores.database.run(outbox.claim(100)):  # of one subject one after the other
        for row in rows:
            effects.effect(row.event())
            effects.effect(row.event())
            notifier.stores.database.run(outbox.done(row.id))


def test_words_stay_short_and_on_one_line() -> None:
    contents = [
        JobFinished(job_id=JOB, job_kind="training", model_id=1, model_name="My\nmug"),
        JobFinished(job_id=JOB, job_kind="generation"),
        JobFailedNotice(job_id=JOB, job_kind="training", reason="x" * 5000),
        SampleReadyNotice(job_id=JOB, name="a.png", step=3),
        VersionPublished(model_id=1, model_name="m" * 300, model_version_id=2, version_name="v1", by="owner"),
        NewFollower(by="fan"),
        Commented(comment_id=1, by="ann", on="My mug", model_id=1, excerpt="Nice"),
        Mentioned(comment_id=1, by="ann", on="an image", model_id=None, excerpt="Nice"),
        ReactionMilestone(model_id=1, model_name="My mug", count=10),
        DownloadMilestone(model_id=1, model_name="My mug", count=1000),
        SystemNotice(title="T" * 400, text="text"),
    ]
    assert {content.type for content in contents} == set(TYPES)
    for content in contents:
        said = text_of(content)
        assert 0 < len(said.title) <= MAX_TITLE
        assert 0 < len(said.text) <= MAX_TEXT
        assert "\n" not in said.title
        assert said.path.startswith("/api/v1/") or not said.path


def test_a_drain_that_always_finds_more_ends_soon_after_its_flow_is_paused(
    notifier: Notifier, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining_flows, "ITERATION_SECONDS", 0)
    monkeypatch.setattr(draining_flows, "note_point", lambda *_: None)
    for number in range(3):
        notifier.notify(f"news {number}")
    notifier.stores.database.run(pauses.add(fanning.FAN_OUT, Switch.DARKROOM))
    assert fanning.fan_out_notifications.fn() == 1
    notifier.stores.database.run(pauses.remove(fanning.FAN_OUT))
    assert notifier.fan_out() == 2


def test_the_flows_do_it_as_prefect_runs_them(
    notifier: Notifier,
    environment: dict[str, str],
    prefect: SyncPrefectClient,
    mlflow_settings: MlflowSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DARKROOM_MLFLOW__URL", mlflow_settings.url)
    monkeypatch.setenv("DARKROOM_MLFLOW__AUTH", mlflow_settings.auth.get_secret_value())
    monkeypatch.setattr(draining_flows, "IDLE_SECONDS", 0.1)
    reader = notifier.reader("reader")
    notifier.notify("to all")
    number = notifier.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT))
    assert number is not None
    assert fanning.fan_out_notifications() == 1
    assert notifier.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) is None
    notifier.notify("again")
    assert notifier.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) == number + 1
    with notifier.stores.database.session_lock(fanning.FAN_OUT):
        assert notifier.stores.database.run(notifications.fan_out_wanted(fanning.FAN_OUT)) is None
        assert fanning.fan_out_notifications() == 0
    odd = "insert into sendings (id, purpose, reader, channel) values (%(id)s, 'notify', %(n)s, 'email') returning id"
    notifier.rows(odd, id=JOB, n=reader)
    with notifier.stores.database.session_lock(DELIVER):
        assert notifier.stores.database.run(deliveries.wanted(DELIVER)) is None
        assert deliver_notifications() == 0
    assert notifier.stores.database.run(deliveries.wanted(DELIVER)) is not None
    assert deliver_notifications() == 1
    assert notifier.rows("select state, last_error from sendings") == [
        {"state": "suppressed", "last_error": "the reader's address is not in use"}
    ]
    client = MlflowClient(tracking_uri=mlflow_settings.url)
    for flow, figures in ((fanning.FAN_OUT, {"failed": 0.0}), (DELIVER, {"dead_letters": 0.0})):
        experiment = client.get_experiment_by_name(flow)
        assert experiment is not None
        [run] = client.search_runs([experiment.experiment_id])
        assert run.data.metrics["rows"] >= 1
        assert run.data.metrics["rows_per_second"] > 0
        assert figures.items() <= run.data.metrics.items()
        [table] = prefect.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[flow])))
        assert '"rows": 1' in str(table.data)
