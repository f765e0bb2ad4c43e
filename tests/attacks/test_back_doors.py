"""The whole platform, knocked at where it is not the API: by a page of another origin, a rebound name, somebody without
credentials, another process of the machine, another user of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.sync.client import connect

from deployments.local.prefect_http import prefect_http
from tests.deployments.platform import Platform, running_platform

EVIL = "https://evil.example"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running_platform() as platform:
        yield platform


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
    answers = [
        stranger.post("deployments/filter", json={}),
        stranger.get("admin/settings"),
        stranger.get("csrf-token", params={"client": "me"}),
        stranger.get("work_pools/training"),
        stranger.get("admin/settings", auth=("darkroom", "")),
        stranger.get("admin/settings", auth=("darkroom", "0" * 64)),
    ]

    # What changes something is refused for want of a token before anybody is asked who they are.
    assert [answer.status_code for answer in answers] == [403, 401, 401, 401, 401, 401]
    assert stranger.get("admin/settings", auth=authorization(platform)).status_code == 200
    assert platform.settings.prefect.auth.get_secret_value() not in "".join(answer.text for answer in answers)


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
    for answer in (posted, read, preflight):
        assert answer.headers.get("access-control-allow-origin") is None


def test_prefects_own_page_may_call_it_by_both_names_of_this_machine(platform: Platform, prefect: httpx.Client) -> None:
    port = platform.settings.prefect.port
    for origin in (f"http://127.0.0.1:{port}", f"http://localhost:{port}"):
        asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        preflight = prefect.options("deployments/filter", headers=asked)
        answer = prefect.post("deployments/filter", json={}, headers={"Origin": origin})

        assert preflight.status_code == 200, preflight.text
        assert answer.status_code == 200, answer.text
        assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("path", ["/", "/api/health", "/api/admin/settings", "/ui-settings", "/docs"])
def test_prefect_answers_to_its_own_names_only(platform: Platform, path: str) -> None:
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


def deployment(prefect: httpx.Client, name: str) -> dict[str, Any]:
    (found,) = prefect.post("deployments/filter", json={"deployments": {"name": {"any_": [name]}}}).json()
    return found
