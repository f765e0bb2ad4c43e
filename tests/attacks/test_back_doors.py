"""The whole platform, knocked at where it is not the API: by a page of another origin, a rebound name, somebody without
credentials, another process of the machine, another user of it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import psutil
import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.retry import Retry
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from deployments.local.servers.prefect_http import prefect_http
from storage.settings import Settings
from tests.deployments.platform import Platform
from tests.faults.bench import Bench

EVIL = "https://evil.example"
WRONG = (None, "", "0" * 64)


@pytest.fixture
def platform(bench: Bench) -> Platform:
    return bench.platform


@pytest.fixture
def stranger(platform: Platform) -> Iterator[httpx.Client]:
    """Somebody who has the address of Prefect and nothing else."""
    with httpx.Client(base_url=f"{platform.settings.prefect.api_url}/", timeout=30) as client:
        yield client


@pytest.fixture
def prefect(platform: Platform) -> Iterator[httpx.Client]:
    """Somebody who may read the data folder."""
    with prefect_http(platform.settings.prefect) as client:
        yield client


def authorization(platform: Platform) -> httpx.BasicAuth:
    user, secret = platform.settings.prefect.auth.get_secret_value().split(":")
    return httpx.BasicAuth(user, secret)


def test_without_the_auth_string_prefect_gives_nothing(platform: Platform, stranger: httpx.Client) -> None:
    responses = [
        stranger.post("deployments/filter", json={}),
        stranger.get("admin/settings"),
        stranger.get("csrf-token", params={"client": "me"}),
        stranger.get("work_pools/training"),
        stranger.get("admin/settings", auth=("darkroom", "")),
        stranger.get("admin/settings", auth=("darkroom", "0" * 64)),
    ]

    # What changes something is refused for want of a token before anybody is asked who they are.
    assert [response.status_code for response in responses] == [403, 401, 401, 401, 401, 401]
    assert stranger.get("admin/settings", auth=authorization(platform)).status_code == 200
    assert platform.settings.prefect.auth.get_secret_value() not in "".join(response.text for response in responses)


def test_prefect_is_closed_to_a_page_of_another_origin_even_with_the_auth_string(
    platform: Platform, stranger: httpx.Client
) -> None:
    """A browser that has signed in sends what it knows along with what another page asks for."""
    signed_in = authorization(platform)
    foreign = {"Origin": EVIL}

    posted = stranger.post("deployments/filter", json={}, headers=foreign, auth=signed_in)
    read = stranger.get("admin/settings", headers=foreign, auth=signed_in)
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "prefect-csrf-token"}
    preflight = stranger.options("deployments/filter", headers=foreign | asked)

    assert posted.status_code == 403
    assert "CSRF" in posted.text
    assert preflight.status_code == 400
    for response in (posted, read, preflight):
        assert response.headers.get("access-control-allow-origin") is None


def test_prefects_own_page_may_call_it_by_both_names_of_this_machine(platform: Platform, prefect: httpx.Client) -> None:
    port = platform.settings.prefect.port
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = prefect.options("deployments/filter", headers=asked)
        response = prefect.post("deployments/filter", json={}, headers={"Origin": origin})

        assert preflight.status_code == 200, preflight.text
        assert response.status_code == 200, response.text
        assert response.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("path", ["/", "/api/health", "/api/admin/settings", "/ui-settings", "/docs"])
def test_prefect_accepts_its_own_names_only(platform: Platform, path: str) -> None:
    """A DNS name that is turned to 127.0.0.1 makes a foreign page one of the same origin."""
    url = f"http://127.0.0.1:{platform.settings.prefect.port}{path}"

    rebound = httpx.get(url, headers={"Host": f"evil.example:{platform.settings.prefect.port}"})

    assert (rebound.status_code, rebound.text) == (400, "Invalid host header")
    assert httpx.get(url).status_code < 400 or path == "/api/admin/settings"


@pytest.mark.parametrize(
    "path", ["events/in", "events/out", "logs/out", "task_runs/subscriptions/scheduled", "work_pools/x/workers/connect"]
)
def test_prefects_websockets_ask_for_the_auth_string_too(platform: Platform, path: str) -> None:
    host = urlsplit(platform.settings.prefect.api_url).netloc
    address = f"ws://{host}/api/{path}"

    with pytest.raises((ConnectionClosed, InvalidHandshake)), connect(address) as bare:
        bare.recv(timeout=10)
    for token in ("", "darkroom:" + "0" * 64):
        with connect(address, subprotocols=["prefect"]) as socket:  # pyright: ignore[reportArgumentType]
            socket.send(f'{{"type": "auth", "token": "{token}"}}')
            with pytest.raises(ConnectionClosed):
                socket.recv(timeout=10)
    evil = {"Host": "evil.example"}
    with pytest.raises(InvalidHandshake), connect(address, additional_headers=evil):
        pass


@pytest.mark.parametrize(
    "variables",
    [
        {"command": "touch /tmp/evil"},
        {"working_dir": "/tmp"},
        {"env": {"PYTHONPATH": "/tmp"}},
        {"env.PYTHONPATH": "/tmp"},
        {"stream_output": False},
    ],
    ids=lambda variables: next(iter(variables)),
)
@pytest.mark.parametrize("name", ["reconcile", "train-dreambooth"])
def test_no_run_and_no_deployment_says_how_its_process_is_started(
    prefect: httpx.Client, name: str, variables: dict[str, Any]
) -> None:
    """Those who hold the auth string may still deploy code of their own: it is the boundary, this stands behind it."""
    (deployed,) = prefect.post("deployments/filter", json={"deployments": {"name": {"any_": [name]}}}).json()
    where, brings = f"deployments/{deployed['id']}", {"job_variables": variables}
    needed = {"job_id": str(UUID(int=0)), "attempt": 1} if name == "train-dreambooth" else {}
    wish: dict[str, Any] = {"parameters": needed}
    other = {"name": "evil", "flow_id": deployed["flow_id"], "work_pool_name": deployed["work_pool_name"]}

    refused = [
        prefect.post(f"{where}/create_flow_run", json=wish | brings),
        prefect.post("deployments/", json=other | brings),
    ]
    # Prefect takes a change of the deployment unread; no run of it begins.
    prefect.patch(where, json=brings).raise_for_status()
    refused.append(prefect.post(f"{where}/create_flow_run", json=wish))
    prefect.patch(where, json={"job_variables": {}}).raise_for_status()

    assert [response.status_code for response in refused] == [422, 422, 422], [response.text for response in refused]
    assert all("Additional properties are not allowed" in response.text for response in refused)


def test_the_pools_start_one_command_in_one_folder(prefect: httpx.Client) -> None:
    for pool in ("training", "light"):
        template = prefect.get(f"work_pools/{pool}").json()["base_job_template"]

        assert template["job_configuration"] == {
            "command": "python -m prefect.engine",
            "working_dir": "/",
            "stream_output": True,
        }
        assert template["variables"] == {"type": "object", "properties": {}, "additionalProperties": False}


def test_valkey_listens_on_no_port_and_asks_for_its_password(platform: Platform) -> None:
    """Prefect's server runs what it finds in one of its queues."""
    process = psutil.Process(platform.pid("valkey"))
    assert process.net_connections("inet") == []
    socket, once = str(platform.settings.valkey_socket), Retry(NoBackoff(), 0)
    for bare in (Redis(unix_socket_path=socket, password=password, retry=once) for password in WRONG):
        with pytest.raises((AuthenticationError, ResponseError), match=r"(?i)auth|password"):
            bare.xadd("queue", {"payload": b"cos\nsystem\n(S'true'\ntR."})
    url = platform.settings.redis.url.get_secret_value()
    with Redis.from_url(url) as known:
        assert known.ping()
        for refused in (
            ("CONFIG", "GET", "requirepass"),
            ("ACL", "LIST"),
            ("FLUSHALL",),
            ("SELECT", "1"),
            ("MOVE", "a", "1"),
        ):
            with pytest.raises((NoPermissionError, ResponseError), match=r"(?i)permission"):
                known.execute_command(*refused)
    for queue in (url.replace("db=2", f"db={number}") for number in (0, 1)):
        with Redis.from_url(queue) as ours, pytest.raises(NoPermissionError):
            ours.xadd("queue", {"payload": b"x"})


MLFLOW_DOORS = [
    ("GET", "/"),
    ("GET", "/version"),
    ("POST", "/api/2.0/mlflow/experiments/search"),
    ("POST", "/api/2.0/mlflow/users/create"),
    ("GET", "/api/2.0/mlflow-artifacts/artifacts"),
    ("GET", "/ajax-api/2.0/mlflow/experiments/search?max_results=1"),
    ("GET", "/ajax-api/3.0/jobs/x"),
    ("POST", "/ajax-api/3.0/mlflow/assistant/sessions"),
    ("POST", "/v1/traces"),
    ("GET", "/get-artifact?path=x&run_uuid=y"),
    ("GET", "/signup"),
]


@pytest.fixture
def mlflow(platform: Platform) -> Iterator[httpx.Client]:
    """Somebody who has the address of MLflow and nothing else."""
    with httpx.Client(base_url=platform.settings.mlflow.url, timeout=30) as client:
        yield client


@pytest.mark.parametrize(("method", "path"), MLFLOW_DOORS, ids=lambda value: value)
def test_without_its_password_mlflow_gives_nothing(mlflow: httpx.Client, method: str, path: str) -> None:
    for auth in (None, ("darkroom", ""), ("darkroom", "0" * 64), ("admin", "password"), ("admin", "password1234")):
        response = mlflow.request(method, path, json={} if method == "POST" else None, auth=auth)

        assert response.status_code == 401, response.text
        assert response.headers["www-authenticate"] == 'Basic realm="mlflow"'


def test_mlflow_is_closed_to_pages_of_other_origins_and_to_rebound_names_even_with_the_password(
    platform: Platform, mlflow: httpx.Client
) -> None:
    search, body, auth = "/api/2.0/mlflow/experiments/search", {"max_results": 1}, platform.settings.mlflow.credentials
    assert auth
    port = platform.settings.mlflow.port
    assert mlflow.post(search, json=body, auth=auth).status_code == 200
    for own in (f"127.0.0.1:{port}", f"localhost:{port}"):
        page = {"Host": own, "Origin": f"http://{own}"}
        assert mlflow.post(search, json=body, auth=auth, headers=page).status_code == 200
    for origin in (
        EVIL,
        "null",
        "http://localhost:1",
        f"http://127.0.0.1.evil.example:{port}",
        f"http://localhost:{port}",
    ):
        foreign = {"Origin": origin}
        for response in (
            mlflow.post(search, json=body, auth=auth, headers=foreign),
            mlflow.get("/", auth=auth, headers=foreign),
            mlflow.options(search, headers=foreign | {"Access-Control-Request-Method": "POST"}),
        ):
            assert response.status_code == 403, origin
            assert "access-control-allow-origin" not in response.headers
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", "10.0.0.1:5000"):
        assert mlflow.post(search, json=body, auth=auth, headers={"Host": host}).status_code == 403, host


def test_what_signs_in_to_a_server_is_in_files_of_this_user_alone(platform: Platform) -> None:
    settings = platform.settings
    secrets = [*held(settings), settings.mlflow_accounts_file, settings.valkey_socket.with_name("valkey.conf")]
    assert len(secrets) == 9

    for file in secrets:
        assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_uid) == (0o600, os.geteuid()), file
        assert len(file.read_text().strip()) >= 64, file


OPEN_ALL = """
import os, socket, stat, sys
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
for line in sys.stdin:
    path = line.rstrip("\\n")
    try:
        mode = os.lstat(path).st_mode
        if stat.S_ISSOCK(mode):
            socket.socket(socket.AF_UNIX).connect(path)
        elif stat.S_ISDIR(mode):
            os.listdir(path)
        elif stat.S_ISREG(mode):
            open(path, "rb").close()
        else:
            continue
    except OSError:
        continue
    print(path)
"""
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_of_the_machine_opens_no_file_folder_or_socket_of_the_data_folder(platform: Platform) -> None:
    everything = [platform.folder, *platform.folder.rglob("*")]
    # The log of this test's own `up` is written by the test.
    paths = "\n".join(str(path) for path in everything if path.name != "test-up.log")
    assert "valkey.sock" in paths
    assert ".s.PGSQL.5432" in paths

    tried = subprocess.run(
        [sys.executable, "-c", OPEN_ALL.format(uid=NOBODY)], input=paths, capture_output=True, text=True, check=True
    )

    assert tried.stdout.splitlines() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_another_user_of_the_machine_sees_no_secret_in_the_list_of_processes(platform: Platform) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW_PROCESSES.format(uid=NOBODY)], capture_output=True, text=True, check=True
    ).stdout

    assert "deployments.prefect_server:create" in shown
    for secret in secrets_of(platform):
        assert secret not in shown


SHOW_PROCESSES = """
import os, pathlib
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
for folder in pathlib.Path("/proc").glob("[0-9]*"):
    for name in ("cmdline", "environ"):
        try:
            print((folder / name).read_bytes().replace(b"\\0", b" ").decode(errors="replace"))
        except OSError:
            continue
"""


def secrets_of(platform: Platform) -> list[str]:
    """What the data folder holds of secrets."""
    return [file.read_text().strip().rpartition(":")[2] for file in held(platform.settings)]


def held(settings: Settings) -> list[Path]:
    """The files of the data folder that hold a secret each; no key was rotated yet."""
    return [file for file in settings.backed_up_secrets if file.exists()]
