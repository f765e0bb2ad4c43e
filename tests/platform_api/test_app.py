"""The door starts quickly, light and alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from storage.settings import PostgresSettings, RedisSettings, Settings
from tests.platform_api.access.test_guards import TABLE, filled
from tests.platform_api.door import Door, listening

PROJECT = Path(__file__).parents[2]


def test_it_starts_and_serves_while_postgres_and_valkey_are_unavailable(tmp_path: Path):
    settings = Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr("postgresql://nobody@127.0.0.1:1/none")),
        redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")),
    )
    with listening(settings) as url:
        health = httpx.get(f"{url}/health", timeout=30)
        response = httpx.get(f"{url}/api/v1/models", headers={"Authorization": "Bearer drk_a_b"}, timeout=30)
        page = httpx.get(f"{url}/docs", timeout=30)
        ready, live = (httpx.get(f"{url}/health/{kind}", timeout=30) for kind in ("ready", "live"))
    assert (health.status_code, health.json()["parts"]["postgres"], health.json()["parts"]["valkey"]) == (
        503,
        "unavailable",
        "unavailable",
    )
    assert (response.status_code, response.json()["code"]) == (503, "postgres_unavailable")
    assert response.headers["retry-after"] == health.headers["retry-after"] == "5"
    assert page.status_code == 200
    assert (ready.status_code, ready.json(), ready.headers["retry-after"]) == (503, {"status": "down"}, "5")
    assert (live.status_code, live.json()) == (200, {"status": "ok"})


def test_the_door_loads_no_model_library_and_nothing_that_reads_images():
    """Its processor time to import, too: a start of two seconds leaves no room for torch. With bytecode, which the
    image has: compiling our own modules takes half a second more, so the first of two runs may."""
    code = (
        "import resource, sys, platform_api.app;"
        "print(sorted({'torch', 'prefect', 'mlflow', 'diffusers', 'flows', 'numpy', 'pandas', 'PIL'} & {*sys.modules}),"
        "resource.getrusage(resource.RUSAGE_SELF).ru_utime < 2)"
    )
    with_bytecode = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    _, done = (
        subprocess.run(
            [sys.executable, "-c", code], env=with_bytecode, capture_output=True, text=True, cwd=PROJECT, check=True
        )
        for _ in range(2)
    )
    assert done.stdout.strip() == "[] True"


def test_every_operation_documents_its_errors_with_examples(shared_door: Door):
    document = shared_door.client("").get("/schema/openapi.json").json()
    for path, item in document["paths"].items():
        for method in {"get", "head", "put", "post", "patch", "delete"} & set(item):
            for status, response in item[method]["responses"].items():
                if int(status) >= 400 and (path, status) not in ((("/health"), "503"), ("/health/ready", "503")):
                    (media,) = response["content"].values()
                    kind = "OrchestrationProblem" if path.startswith("/v2/") else "Problem"
                    assert media["schema"] == {"$ref": f"#/components/schemas/{kind}"}, (path, status)
                    assert media["examples"], (path, status)


def test_the_orchestration_documents_what_was_waited_for_in_vain(shared_door: Door):
    paths = shared_door.client("").get("/schema/openapi.json").json()["paths"]
    workflows = "/v2/consumer/workflows"
    operations = (
        paths[workflows]["post"],
        paths[f"{workflows}/{{workflow_id}}"]["get"],
        paths["/v2/consumer/recipes/{step_type}"]["post"],
    )
    for one in operations:
        assert {"200", "202"} <= one["responses"].keys(), one["operationId"]


def test_head_is_get_without_its_body_on_every_route_that_ends(shared_door: Door):
    client = shared_door.client()
    resumed = "/api/v1/uploads/{upload_id}"  # its HEAD is that of tus, which asks for the protocol's version
    for path in (path for method, path in TABLE if method == "GET" and path != resumed):
        head = client.head(filled(path))
        if path.endswith("/events"):
            assert head.status_code == 405
            continue
        got = client.get(filled(path))
        assert (head.status_code, head.content) == (got.status_code, b""), path
        named = ("content-type", "etag", "cache-control", "x-ratelimit-limit")
        assert {name: head.headers.get(name) for name in named} == {name: got.headers.get(name) for name in named}, path
        if "etag" in got.headers:
            assert head.headers["content-length"] == got.headers["content-length"], path
    assert client.head("/nothing").status_code == 404
    assert client.head("/api/v1/training-jobs/6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11/cancel").status_code == 405


def darkroom_lines(caplog: pytest.LogCaptureFixture) -> str:
    """What our own loggers have said."""
    return "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("darkroom"))


def test_no_secret_is_in_the_log(shared_door: Door, caplog):
    caplog.set_level("DEBUG", logger="darkroom.api")
    client = shared_door.client()
    client.get("/api/v1/images/x?expires=99999999999&signature=abcdef")
    client.get("/api/v1/models")
    deadline = time.monotonic() + 10
    while "GET /api/v1/models 200" not in (ours := darkroom_lines(caplog)) and time.monotonic() < deadline:
        time.sleep(0.05)  # a request's line is written once its response has gone
    assert "GET /api/v1/models 200" in ours
    assert shared_door.key.rsplit("_", 1)[1] not in ours
    assert "abcdef" not in ours
