"""A job's event stream: complete, in order, replayable, and alive while stores are not."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest

from platform_api.streams import job_events, stream_keys
from storage.postgres.connection import Query
from storage.postgres.jobs import job_files, jobs
from storage.records.jobs.jobs import JobFileRole, Progress
from storage.redis.progress import ProgressWriter
from storage.settings import ApiSettings
from tests.platform_api.door import ALL, Door, register_starter, serving, upload

Message = dict[str, str]

pytestmark = pytest.mark.timeout(60)


def read(response: httpx.Response) -> Iterator[Message]:
    """Server-sent events as they come: `id`, `event`, `data`, or `comment`."""
    message: Message = {}
    for line in response.iter_lines():
        if not line:
            if message:
                yield message
            message = {}
        elif line.startswith(":"):
            message["comment"] = line
        else:
            name, _, value = line.partition(": ")
            message[name] = value


def submitted(client: httpx.Client) -> dict[str, Any]:
    """A new training job."""
    response = client.post("/api/v1/training-jobs", json={"dataSetId": upload(client, 2)["id"], "classWord": "mug"})
    assert response.status_code == 202, response.text
    return response.json()


def later(*steps: Callable[[], object], pause: float = 0.3) -> threading.Thread:
    """Do these things one after the other, beside the test."""

    def run() -> None:
        for step in steps:
            time.sleep(pause)
            step()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_job_is_followed_from_submission_to_its_end(door: Door):
    client = door.client()
    job = submitted(client)
    job_id = UUID(str(job["id"]))
    ticks = ProgressWriter(door.settings.redis)
    sample = job_files.put_file(
        job_id, 1, name="s.png", role=JobFileRole.SAMPLE, sha256="0" * 64, size=1, media_type="image/png", step=3
    )
    thread = later(
        lambda: door.database.run(jobs.claim(job_id, 1, None)),
        lambda: ticks.publish(job_id, Progress(phase="fit", step=2, total=9, loss=0.5)),
        lambda: door.database.run(sample),
        lambda: door.database.run(jobs.succeed(job_id, 1, None)),
    )
    began = time.monotonic()
    with client.stream("GET", job["links"]["events"]) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        seen = list(read(response))
    thread.join()
    kinds = [message["event"] for message in seen if "event" in message]
    assert kinds == ["job.submitted", "job.started", "progress", "job.sample_ready", "job.succeeded"]
    ids = [int(message["id"]) for message in seen if "id" in message]
    assert ids == sorted(ids)
    assert len(ids) == 4
    tick = next(message for message in seen if message.get("event") == "progress")
    assert "id" not in tick
    assert json.loads(tick["data"]) == {"phase": "fit", "step": 2, "total": 9, "loss": 0.5}
    assert json.loads(seen[-1]["data"])["jobId"] == str(job_id)
    assert time.monotonic() - began < job_events.LOOK_SECONDS, (
        "the stream waited for the slow look instead of being woken"
    )


def test_what_came_after_the_last_event_id_is_replayed(door: Door):
    client = door.client()
    job = submitted(client)
    client.post(job["links"]["cancel"])
    with client.stream("GET", job["links"]["events"]) as response:
        ids = [message["id"] for message in read(response) if "id" in message]
    with client.stream("GET", job["links"]["events"], headers={"Last-Event-ID": ids[0]}) as response:
        assert [message["id"] for message in read(response) if "id" in message] == ids[1:]
    done = client.get(job["links"]["events"], headers={"Last-Event-ID": ids[-1]})
    assert (done.status_code, done.content) == (204, b""), "browsers ask again for ever unless they get 204"


def test_the_stream_of_a_job_whose_events_are_kept_no_longer_is_over_at_once(door: Door):
    client = door.client()
    job = submitted(client)
    client.post(job["links"]["cancel"])
    door.database.run(Query("delete from outbox returning id", {}, len))
    done = client.get(job["links"]["events"])
    assert (done.status_code, done.content) == (204, b""), "browsers ask again for ever unless they get 204"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "9" * 30, "\u0661".encode().decode("latin-1")])
def test_a_last_event_id_that_is_none_of_ours_is_refused(shared_door: Door, last: str):
    client = shared_door.client()
    path = f"/api/v1/training-jobs/{UUID(int=5)}/events"
    response = client.get(path, headers={b"Last-Event-ID": last.encode("latin-1")})
    assert response.status_code == 422
    assert "Last-Event-ID" in response.json()["errors"]


def test_a_last_event_id_from_the_future_still_ends_with_the_job(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_events, "LOOK_SECONDS", 0.2)
    client = door.client()
    job = submitted(client)
    thread = later(lambda: client.post(job["links"]["cancel"]))
    with client.stream("GET", job["links"]["events"], headers={"Last-Event-ID": "999999"}) as response:
        assert not [message for message in read(response) if "id" in message]
    thread.join()


def test_a_quiet_stream_says_that_it_is_alive(door: Door, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(job_events, "KEEP_ALIVE_SECONDS", 0.3)
    monkeypatch.setattr(job_events, "LOOK_SECONDS", 0.1)
    client = door.client()
    with client.stream("GET", submitted(client)["links"]["events"]) as response:
        assert any("comment" in message for message in read(response))


def test_it_works_without_valkey_and_after_its_listener_lost_postgres(database_url: str, tmp_path: Path):
    with serving(tmp_path, database_url) as door:
        register_starter(door.database)
        client = door.client()
        job = submitted(client)
        kick = (
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query ilike 'listen%'"
        )

        def lose_the_listener() -> None:
            with door.database.connect() as connection:
                assert connection.execute(kick).rowcount == 1

        thread = later(lose_the_listener, lambda: client.post(job["links"]["cancel"]), pause=1.0)
        with client.stream("GET", job["links"]["events"]) as response:
            kinds = [message["event"] for message in read(response) if "id" in message]
        thread.join()
    assert kinds == ["job.submitted", "job.cancelled"]


def test_a_stream_that_its_client_leaves_frees_its_slot(database_url: str, valkey_url: str, tmp_path: Path):
    few = ApiSettings(max_streams_per_account=2)
    with serving(tmp_path, database_url, valkey_url, api=few) as door:
        register_starter(door.database)
        client = door.client()
        events_path = submitted(client)["links"]["events"]
        for _ in range(4):
            with contextlib.ExitStack() as left:
                followed(left, client, events_path)
        with contextlib.ExitStack() as kept:
            held = [followed(kept, client, events_path) for _ in range(2)]
            refused = client.get(events_path)
            assert len(held) == 2
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")


def followed(stack: contextlib.ExitStack, client: httpx.Client, path: str) -> Iterator[Message]:
    """A stream that has begun; waits while the slots of those who left are still held."""
    for _ in range(200):
        response = stack.enter_context(client.stream("GET", path))
        if response.status_code == 200:
            messages = read(response)
            next(messages)
            return messages
        time.sleep(0.1)
    raise AssertionError("No slot became free.")


def test_another_owners_stream_is_not_there(door: Door):
    job = submitted(door.client())
    stranger = door.client(door.new_key(*ALL, account="stranger"))
    assert stranger.get(job["links"]["events"]).status_code == 404


LOST = {
    "key_revoked": "update api_keys set revoked_at = now() where id = %(key)s",
    "key_expired": "update api_keys set expires_at = now() where id = %(key)s",
    "account_banned": "update accounts set status = 'banned', ban_reason = 'spam' where name = 'follower'",
}


@pytest.fixture
def keys_are_checked_often(monkeypatch: pytest.MonkeyPatch) -> None:
    assert stream_keys.CHECK_SECONDS <= 5, "a stream ends at the latest 10 s after its key"
    monkeypatch.setattr(stream_keys, "CHECK_SECONDS", 1.0)


@pytest.mark.usefixtures("keys_are_checked_often")
@pytest.mark.parametrize("reason", LOST)
def test_a_stream_ends_with_its_key_and_says_why(door: Door, reason: str):
    key = door.new_key(*ALL, account="follower")
    client = door.client(key)
    paths = (submitted(client)["links"]["events"], "/api/v1/notifications/events")
    with contextlib.ExitStack() as followed_ones:
        streams = [followed(followed_ones, client, path) for path in paths]
        began = time.monotonic()
        door.database.run(Query(LOST[reason], {"key": key.split("_")[1]}, len))
        for stream in streams:
            *_, last = list(stream)
            assert (last["event"], json.loads(last["data"])) == ("stream.ended", {"reason": reason})
        assert time.monotonic() - began < 10
    assert client.get(paths[0]).status_code in (401, 403)
