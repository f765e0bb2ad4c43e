"""Every request leaves one line, with its id and without its query; every response carries the id."""

from __future__ import annotations

import io
import json
import re
import time
from typing import Any

import httpx
import pytest

from platform_api.http.request_log import UNMATCHED
from tests.json_logs import json_log
from tests.platform_api.access.test_guards import TABLE, filled
from tests.platform_api.door import Door
from tests.platform_api.streams.test_job_events import submitted

__all__ = ["json_log"]
ID = "an-id.of_mine-1"


def requests_in(log: io.StringIO, count: int, pattern: str = r"[A-Z]+ \S+ \d+$") -> list[dict[str, Any]]:
    """The lines about requests, once there are so many: a line comes after the response has left."""
    deadline = time.monotonic() + 10
    while True:
        lines = [json.loads(line) for line in log.getvalue().splitlines()]
        found = [line for line in lines if re.match(pattern, line["message"])]
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_a_request_leaves_one_line_with_its_route_and_without_its_query(
    shared_door: Door, json_log: io.StringIO
) -> None:
    client = shared_door.client()
    asked: list[tuple[httpx.Response, str]] = []
    for method, path, route in (
        ("GET", "/api/v1/models?query=a+prompt&token=hidden", "/api/v1/models"),
        ("GET", "/api/v1/models/999?signature=hidden", "/api/v1/models/{model_id}"),
        ("HEAD", "/api/v1/models", "/api/v1/models"),
        ("GET", "/api/v1/no/such/place?token=hidden", UNMATCHED),
        ("PUT", "/health", UNMATCHED),
        ("POST", "/api/v1/training-jobs", "/api/v1/training-jobs"),
    ):
        asked.append((client.request(method, path), f"{method} {route}"))
    lines = requests_in(json_log, len(asked))
    assert [line["message"] for line in lines] == [f"{what} {response.status_code}" for response, what in asked]
    assert [line["request_id"] for line in lines] == [response.headers["x-request-id"] for response, _ in asked]
    assert lines[0]["account"] == str(shared_door.account_id)
    assert lines[1]["refused"] == "not_found"
    assert all(line["ms"] > 0 for line in lines)
    for hidden in ("hidden", "prompt", shared_door.key.rsplit("_", 1)[1]):
        assert hidden not in json_log.getvalue()


def test_every_response_carries_the_id_that_its_request_came_with(shared_door: Door) -> None:
    client = shared_door.client("")
    client.headers["X-Request-Id"] = ID
    for method, path in (*TABLE, ("GET", "/nothing"), ("PUT", "/health")):
        response = client.request(method, filled(path))
        assert response.headers.get_list("x-request-id") == [ID], (method, path)
        if response.headers.get("content-type") == "application/problem+json" and method != "HEAD":
            assert response.json()["requestId"] == ID, (method, path)


def test_a_stream_carries_the_id_and_leaves_its_line_when_it_ends(door: Door, json_log: io.StringIO) -> None:
    client = door.client()
    job: Any = submitted(client)
    with client.stream("GET", job["links"]["events"], headers={"X-Request-Id": ID}) as response:
        assert response.headers["x-request-id"] == ID
        client.post(job["links"]["cancel"])
        response.read()
    assert [line["request_id"] for line in requests_in(json_log, 1, r"GET \S+/events 200$")] == [ID]


@pytest.mark.parametrize("sent", ["a b", "<script>", "x" * 65, "é".encode().decode("latin-1"), ""])
def test_an_id_that_is_not_plain_is_replaced(shared_door: Door, sent: str) -> None:
    response = shared_door.client("").get("/health", headers={b"X-Request-Id": sent.encode("latin-1")})
    assert re.fullmatch(r"[0-9a-f]{16}", response.headers["x-request-id"])
