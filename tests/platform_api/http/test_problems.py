"""One error body, whatever went wrong."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from platform_api.http import problems
from storage import errors
from storage.postgres import lookup_tables, migrating
from tests.platform_api.door import Door, upload

OF_COMMANDS = {
    migrating.HalfRestored,
    migrating.MigrationRefused,
    migrating.MigrationBlocked,
    migrating.MigrationTooSlow,
    lookup_tables.MappingRefused,
    errors.InvalidSettings,
    errors.BackupFailed,
    errors.BackupDamaged,
}
"""What only the operator's commands and flows raise: no request comes there."""
TELLTALES = re.compile(r"Traceback|psycopg|msgspec|litestar|select |/home|/work|/tmp|\.py\b|Exception|storage\.", re.I)


def assert_problem(response: httpx.Response, status: int) -> dict[str, Any]:
    """The response is a whole problem that gives nothing away."""
    body = response.json()
    assert response.status_code == status == body["status"], response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert set(body) == {"type", "title", "status", "detail", "instance", "errors", "error", "code", "requestId"}
    assert body["error"] == body["detail"] != ""
    assert body["requestId"] == response.headers["x-request-id"]
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert response.headers["cache-control"] == "no-store"
    assert not TELLTALES.search(response.text), response.text
    return body


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "/schema", 404),
        ("GET", "/schema/else", 404),
        ("GET", "/api/v1/training-jobs/not-a-uuid", 404),
        ("GET", "/api/v1/models/" + "9" * 5000, 404),
        ("GET", "/api/v1/models/99999999999999999999999999", 404),
        ("GET", "/api/v1/base-models/%00", 404),
        ("GET", "/api/v1/base-models/%ff%fe", 404),
        ("GET", "/api/v1/model-versions/1/files/%00", 404),
        ("GET", "/api/v1/model-versions/1/files/../../etc/passwd", 404),
        ("PUT", "/health", 405),
        ("DELETE", "/api/v1/training-jobs", 405),
        ("GET", "/api/v1/training-jobs?limit=0", 422),
        ("GET", "/api/v1/training-jobs?limit=ten", 422),
        ("GET", "/api/v1/training-jobs?state=asleep", 422),
        ("GET", "/api/v1/training-jobs?cursor=zzz", 422),
        ("GET", "/api/v1/data-sets?cursor=YXxi", 422),
        ("GET", "/api/v1/data-sets?cursor=%00", 422),
        ("GET", "/api/v1/images/x?expires=1&signature=y", 403),
        ("GET", "/api/v1/images/x", 422),
    ],
)
def test_each_refusal_is_a_problem(shared_door: Door, method: str, path: str, status: int):
    assert_problem(shared_door.client().request(method, path), status)


@pytest.fixture(scope="module")
def data_set(shared_door: Door) -> str:
    """The id of a data set."""
    return str(upload(shared_door.client())["id"])


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("classWord", "x" * 5000, "length <= 64"),
        ("classWord", "mug\0", "control characters"),
        ("classWord", "", "length >= 1"),
        ("classWord", "dog", "does not know 'dog'; it knows: mug, cat"),
        ("classWord", "a; drop table jobs", "plain words"),
        ("steps", -1, ">= 1"),
        ("steps", "800", "expected a whole number"),
        ("steps", 1.5, "expected a whole number"),
        ("steps", True, "expected a whole number"),
        ("learningRate", 0, "> 0"),
        ("baseModel", "no-such", "No base model 'no-such'"),
        ("baseModel", "../../etc", "No base model"),
        ("dataSetId", "6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11", "No data set"),
        ("dataSetId", "nonsense", "UUID"),
        ("seed", 2**40, "<= 2147483647"),
        ("path", "/etc", "there is no such field"),
    ],
)
def test_each_wrong_field_is_named_with_its_reason(
    shared_door: Door, data_set: str, field: str, value: object, reason: str
):
    client = shared_door.client()
    response = client.post("/api/v1/training-jobs", json={"dataSetId": data_set, "classWord": "mug", field: value})
    assert reason in assert_problem(response, 422)["errors"][field]
    assert client.get("/api/v1/training-jobs").json()["items"] == []


def test_every_wrong_field_is_told_at_once(shared_door: Door):
    response = shared_door.client().post("/api/v1/training-jobs", json={"classWord": 5, "steps": -1, "zz": 1})
    assert set(response.json()["errors"]) == {"dataSetId", "classWord", "steps", "zz"}


def test_the_callers_request_id_comes_back_when_it_is_plain(shared_door: Door):
    client = shared_door.client()
    assert client.get("/health", headers={"X-Request-Id": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    assert client.get("/health", headers={"X-Request-Id": "a b<script>"}).headers["x-request-id"] != "a b<script>"


def test_every_named_error_has_a_status_of_its_own_or_its_parents():
    ours = {
        errors.BlobMissing,
        errors.BlobCorrupted,
        errors.JobLost,
        errors.CancellationRequested,
        errors.JobCannotSucceed,
    }
    for kind in filter(ours_to_return, descendants(errors.DarkroomError)):
        expected = 500 if any(issubclass(kind, fault) for fault in ours) and kind is not errors.DiskFull else None
        status = problems.status_of(kind.__new__(kind))
        assert status == expected if expected else 400 <= status < 600 and status != 500, kind


def test_refusals_are_counted_by_reason(shared_door: Door):
    client = shared_door.client()
    before = client.get("/health").json()["refusals"].get("invalid_request", 0)
    client.post("/api/v1/training-jobs", json={})
    assert client.get("/health").json()["refusals"]["invalid_request"] == before + 1


def ours_to_return(kind: type[errors.DarkroomError]) -> bool:
    """Whether an error can reach the API: those of the platform's own commands cannot."""
    return kind.__module__.startswith(("storage", "platform_api")) and kind not in OF_COMMANDS


def descendants(kind: type[errors.DarkroomError]) -> set[type[errors.DarkroomError]]:
    """Every class below `kind`."""
    below = set(kind.__subclasses__())
    return below.union(*(descendants(child) for child in below))
