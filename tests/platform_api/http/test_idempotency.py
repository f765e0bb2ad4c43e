"""Retried requests are one request."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from platform_api.http.idempotency import checked_key, fresh_seed
from storage.errors import InvalidRequest
from tests.platform_api.door import ALL, Door, upload


def submit(client: httpx.Client, data_set: object, key: str | None = None, **fields: object) -> httpx.Response:
    """A training request with an Idempotency-Key."""
    headers = {} if key is None else {"Idempotency-Key": key}
    body = {"dataSetId": data_set, "classWord": "mug", **fields}
    return client.post("/api/v1/training-jobs", json=body, headers=headers)


def job_count(client: httpx.Client) -> int:
    """How many jobs there are."""
    return len(client.get("/api/v1/training-jobs?limit=200").json()["items"])


def test_ten_submissions_at_once_with_two_repeated_keys_are_eight_jobs(door: Door):
    client = door.client()
    data_set = upload(client)["id"]
    keys = ["twice-a", "twice-a", "twice-b", "twice-b", *(f"once-{number}" for number in range(6))]

    def timed(key: str) -> tuple[httpx.Response, float]:
        began = time.monotonic()
        return submit(client, data_set, key), time.monotonic() - began

    with ThreadPoolExecutor(10) as pool:
        responses = list(pool.map(timed, keys))
    assert {response.status_code for response, _ in responses} == {202}
    assert job_count(client) == 8
    assert responses[0][0].content == responses[1][0].content
    assert responses[2][0].content == responses[3][0].content
    assert max(seconds for _, seconds in responses) < 10.0


def test_a_repeat_gets_the_same_bytes_also_after_the_job_went_on(door: Door):
    client = door.client()
    data_set = upload(client)["id"]
    first = submit(client, data_set, "again")
    client.post(first.json()["links"]["cancel"])
    repeat = submit(client, data_set, "again")
    assert (repeat.status_code, repeat.content) == (202, first.content)
    assert repeat.headers["location"] == first.headers["location"] == first.json()["links"]["self"]


def test_a_key_with_another_request_is_refused_by_name(shared_door: Door):
    client = shared_door.client()
    data_set = upload(client)["id"]
    submit(client, data_set, "reused")
    response = submit(client, data_set, "reused", steps=7)
    assert response.status_code == 422
    assert response.json()["code"] == "idempotency_key_reused"
    assert "'reused'" in response.json()["detail"]


def test_another_callers_same_key_is_another_job(shared_door: Door):
    mine, theirs = shared_door.client(), shared_door.client(shared_door.new_key(*ALL, account="neighbour"))
    first = submit(mine, upload(mine)["id"], "shared")
    second = submit(theirs, upload(theirs)["id"], "shared")
    assert first.json()["id"] != second.json()["id"]


def test_a_retry_with_a_key_is_one_job(door: Door):
    client = door.client()
    links = submit(client, upload(client)["id"]).json()["links"]
    client.post(links["cancel"])
    responses = [client.post(links["retry"], headers={"Idempotency-Key": "r"}) for _ in range(2)]
    assert responses[0].content == responses[1].content
    assert job_count(client) == 2


@pytest.mark.parametrize("key", ["", " ", "x" * 256, "caf\u00e9", "a\tb", " a"])
def test_a_key_that_cannot_be_one_is_refused(key: str):
    with pytest.raises(InvalidRequest, match="Idempotency-Key: must have 1 to 255 printable"):
        checked_key(key)


def test_a_request_without_a_seed_gets_one_that_differs():
    seeds = {fresh_seed() for _ in range(50)}
    assert len(seeds) > 45
    assert all(0 <= seed < 2**31 for seed in seeds)
