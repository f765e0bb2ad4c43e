"""Each way in which Postgres refuses has its own response at the door, and says whether waiting helps."""

from __future__ import annotations

import logging
import time

import pytest

from storage.postgres.connection import Query
from tests.platform_api.door import Door

REFUSE = """
create function refuse() returns trigger language plpgsql as $$
begin
    raise exception 'refused' using errcode = tg_argv[0];
end $$
"""


def when_somebody_is_followed(door: Door, state: str) -> None:
    door.database.run(Query("drop trigger if exists refuse on follows", {}, len))
    trigger = f"create trigger refuse before insert on follows for each row execute function refuse('{state}')"
    door.database.run(Query(trigger, {}, len))


@pytest.fixture(scope="module")
def refusing(shared_door: Door) -> Door:
    shared_door.database.run(Query(REFUSE, {}, len))
    return shared_door


@pytest.mark.parametrize(
    ("state", "status", "code", "retry_after"),
    [
        ("40P01", 503, "deadlock", "1"),
        ("40001", 503, "serialization_failure", "1"),
        ("55P03", 503, "lock_timeout", "5"),
        ("57014", 503, "statement_timeout", None),
        ("53100", 507, "disk_full", None),
        ("57P03", 503, "postgres_unavailable", "5"),
        ("55000", 500, "internal_error", None),
    ],
)
def test_each_refusal_has_its_status_its_code_and_its_advice(
    refusing: Door, state: str, status: int, code: str, retry_after: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    client = refusing.client()
    number = refusing.database.run(
        Query("select number from accounts where id = %(id)s", {"id": refusing.account("followed")}, list)
    )[0]["number"]
    when_somebody_is_followed(refusing, state)
    with caplog.at_level(logging.INFO, "darkroom.api"):
        response = client.put(f"/api/v1/follows/{number}")
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers.get("retry-after") == retry_after
    assert response.headers["content-type"] == "application/problem+json"
    assert "refused" not in response.text
    deadline = time.monotonic() + 10
    while status != 500 and code not in refusals(caplog) and time.monotonic() < deadline:
        time.sleep(0.05)  # a request's line is written once its response has gone
    assert status == 500 or code in refusals(caplog)


def refusals(caplog: pytest.LogCaptureFixture) -> set[str | None]:
    """What requests were refused as, by their lines."""
    return {getattr(record, "fields", {}).get("refused") for record in caplog.records}


def test_conflicts_are_counted_as_runs_and_as_refusals(refusing: Door) -> None:
    client = refusing.client()
    number = refusing.database.run(
        Query("select number from accounts where id = %(id)s", {"id": refusing.account("followed")}, list)
    )[0]["number"]
    for state in ("40P01", "55P03"):
        when_somebody_is_followed(refusing, state)
        assert client.put(f"/api/v1/follows/{number}").status_code == 503
    figures = client.get("/metrics").text
    assert 'darkroom_transactions_rerun_total{reason="deadlock"}' in figures
    assert 'darkroom_refusals_total{reason="lock_timeout"}' in figures
