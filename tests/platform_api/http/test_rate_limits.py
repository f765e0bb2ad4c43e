"""Rate limits hold under load, say where one stands, and open when Valkey is unavailable; pages of any origin may
ask."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from deployments.local.servers.valkey import valkey_command
from platform_api.http import rate_limits
from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import Scope
from storage.redis.breaker import PROBE_SECONDS
from storage.settings import LimitSettings
from tests.conftest import free_port
from tests.platform_api.access.test_guards import PUBLIC, TABLE, filled
from tests.platform_api.door import UNLIMITED, Door, listening, serving
from tests.platform_api.http.test_problems import assert_problem

FEW = LimitSettings(reads=20, writes=2, searches=3, downloads=4)
"""So few that in the seconds of a test less than one comes back, but for reads."""


@pytest.fixture
def strict(module_database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    """A door that lets few requests in."""
    with serving(tmp_path, module_database_url, valkey_url, limits=FEW) as door:
        yield door


def test_two_hundred_at_once_against_a_limit_of_twenty_admit_twenty(
    module_database_url: str, valkey_url: str, tmp_path: Path
) -> None:
    with serving(tmp_path, module_database_url, valkey_url, limits=FEW) as door, listening(door.settings) as other:
        with ThreadPoolExecutor(20) as pool, httpx.Client(timeout=30) as client:
            addresses = [f"{url}/api/v1/tags" for url in (door.url, other)] * 100
            began = time.monotonic()
            responses = list(pool.map(client.get, addresses))
        back = int((time.monotonic() - began) / 3)  # one more in each three seconds that this took
    statuses = Counter(response.status_code for response in responses)
    assert set(statuses) == {200, 429}
    assert 20 <= statuses[200] <= 20 + back


def test_a_response_says_where_one_stands_and_a_refusal_when_to_come_back(strict: Door) -> None:
    client = strict.client("")
    for left in (2, 1, 0):
        shown = client.get("/api/v1/models?query=mug")
        assert (shown.headers["x-ratelimit-limit"], shown.headers["x-ratelimit-remaining"]) == ("3", str(left))
        assert 0 < int(shown.headers["x-ratelimit-reset"]) <= 60
    refused = client.get("/api/v1/models?query=mug")
    assert "an API key" in str(assert_problem(refused, 429)["detail"])
    assert 0 < int(refused.headers["retry-after"]) <= 20 < int(refused.headers["x-ratelimit-reset"]) <= 60
    assert refused.headers["x-ratelimit-remaining"] == "0"


def test_each_kind_has_its_own_allowance_and_so_has_each_account(strict: Door) -> None:
    first, second = (strict.client(strict.new_key(*Scope, account=name)) for name in ("first", "second"))
    for _ in range(2):
        assert first.post("/api/v1/training-jobs", json={}).status_code == 422
    assert first.post("/api/v1/training-jobs", json={}).status_code == 429
    assert first.get("/api/v1/search?q=mug").headers["x-ratelimit-limit"] == "3"
    assert first.get("/api/download/models/1").headers["x-ratelimit-limit"] == "4"
    assert first.get("/api/v1/models").headers["x-ratelimit-limit"] == "20"
    assert first.post("/api/v1/model-versions/by-hash", json=[]).headers["x-ratelimit-limit"] == "20"
    assert second.post("/api/v1/training-jobs", json={}).status_code == 422


def test_the_keys_of_an_account_share_its_allowance_whoever_made_them(strict: Door) -> None:
    first, second = (strict.client(strict.new_key(*Scope)) for _ in range(2))
    child = strict.client(first.post("/api/v1/keys", json={"name": "child", "scopes": ["jobs:write"]}).json()["key"])
    assert second.post("/api/v1/training-jobs", json={}).status_code == 422
    refused = child.post("/api/v1/training-jobs", json={})
    assert "this account, whichever of its API keys" in str(assert_problem(refused, 429)["detail"])


@pytest.fixture
def suspicious(database_url: str, valkey_url: str, tmp_path: Path) -> Iterator[Door]:
    """A door that looks five keys a minute up that do not work."""
    limits = UNLIMITED.model_copy(update={"failed_keys": 5})
    with serving(tmp_path, database_url, valkey_url, limits=limits) as door:
        yield door


def made_up(number: int) -> str:
    """A key that nobody made."""
    return f"drk_{number:012x}_{'0' * 64}"


def test_of_two_hundred_made_up_keys_at_once_five_are_looked_up(suspicious: Door, monkeypatch: pytest.MonkeyPatch):
    asked: list[str] = []
    authenticate = accounts.authenticate
    monkeypatch.setattr(accounts, "authenticate", lambda key_id: asked.append(key_id) or authenticate(key_id))
    with ThreadPoolExecutor(20) as pool, httpx.Client(base_url=suspicious.url, timeout=30) as client:
        keys = [{"Authorization": f"Bearer {made_up(number)}"} for number in range(200)]
        responses = list(pool.map(lambda key: client.get("/api/v1/me", headers=key), keys))
    assert Counter(response.status_code for response in responses) == {401: 5, 429: 195}
    assert len(asked) == 5
    refused = next(response for response in responses if response.status_code == 429)
    assert "keys that do not work came from this address" in str(assert_problem(refused, 429)["detail"])
    assert 0 < int(refused.headers["retry-after"]) <= 60


def test_working_keys_do_not_suffer_from_a_neighbour_who_makes_keys_up(suspicious: Door) -> None:
    known, new = suspicious.client(), suspicious.client(suspicious.new_key(*Scope))
    with ThreadPoolExecutor(16) as pool:  # a new key whose client begins with many requests is one key
        statuses = [*pool.map(lambda client: client.get("/api/v1/me").status_code, [known, new] * 64)]
    assert Counter(statuses) == {200: 128}
    assert [suspicious.client(made_up(n)).get("/api/v1/me").status_code for n in range(6)] == [401] * 5 + [429]
    assert {client.get("/api/v1/me").status_code for client in (known, new)} == {200}
    with listening(suspicious.settings) as another_process, httpx.Client(base_url=another_process) as there:
        for key, status in ((suspicious.key, 200), (made_up(7), 429)):
            assert there.get("/api/v1/me", headers={"Authorization": f"Bearer {key}"}).status_code == status
    suspicious.database.run(accounts.revoke_key(suspicious.key.split("_")[1]))
    assert known.get("/api/v1/me").status_code == 401


def test_a_key_that_was_revoked_is_looked_up_no_more_than_one_that_was_made_up(suspicious: Door) -> None:
    key = suspicious.new_key(*Scope)
    client = suspicious.client(key)
    assert client.get("/api/v1/me").status_code == 200
    assert [suspicious.client(made_up(n)).get("/api/v1/me").status_code for n in range(6)] == [401] * 5 + [429]
    suspicious.database.run(accounts.revoke_key(key.split("_")[1]))
    # The process that remembers it looks once more; so does whoever first finds that it works no more.
    assert [client.get("/api/v1/me").status_code for _ in range(5)] == [401, 401, 429, 429, 429]
    with listening(suspicious.settings) as another_process, httpx.Client(base_url=another_process) as there:
        assert there.get("/api/v1/me", headers={"Authorization": f"Bearer {key}"}).status_code == 429


@pytest.mark.parametrize(
    ("one", "another", "shared"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("::ffff:c000:201", "192.0.2.1", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("not an address", "not an address either", False),
    ],
)
def test_an_ipv4_client_counts_as_itself_and_an_ipv6_client_by_its_network(one: str, another: str, shared: bool):
    counted = [rate_limits.address_of(cast(Any, {"client": (text, 1)})) for text in (one, another)]
    assert (counted[0] == counted[1]) is shared


def test_keys_that_do_not_work_count_for_the_address_and_never_for_the_key(strict: Door) -> None:
    key_id = strict.key.split("_")[1]
    statuses = [
        strict.client(f"drk_{name}_{'0' * 64}").get("/api/v1/search?q=mug").status_code
        for name in ("made", "up", "keys", key_id, key_id, key_id)
    ]
    assert statuses == [401, 401, 401, 429, 429, 429]
    assert strict.client().get("/api/v1/search?q=mug").headers["x-ratelimit-remaining"] == "2"


def test_an_address_is_the_peers_unless_a_trusted_proxy_says_otherwise(strict: Door) -> None:
    path, said = "/api/v1/search?q=mug", {"X-Forwarded-For": "198.51.100.7"}
    plain = strict.client("")
    assert plain.get(path, headers=said).headers["x-ratelimit-remaining"] == "2"
    assert plain.get(path).headers["x-ratelimit-remaining"] == "1"
    settings = strict.settings.model_copy(deep=True)
    settings.api.trusted_proxies = ["127.0.0.0/8", "10.0.0.0/8"]
    with listening(settings) as url, httpx.Client(base_url=url) as behind:
        assert behind.get(path, headers=said).headers["x-ratelimit-remaining"] == "2"
        chain = {"X-Forwarded-For": "203.0.113.9, 198.51.100.7, 10.1.2.3"}  # only what trusted proxies added counts
        assert behind.get(path, headers=chain).headers["x-ratelimit-remaining"] == "1"
        six = {"X-Forwarded-For": "2001:db8:1:2::1"}
        assert behind.get(path, headers=six).headers["x-ratelimit-remaining"] == "2"
        assert (
            behind.get(path, headers={"X-Forwarded-For": "2001:db8:1:2:ffff::9"}).headers["x-ratelimit-remaining"]
            == "1"
        )


def test_every_route_is_counted_but_liveness(strict: Door) -> None:
    strangers = strict.client("")
    for method, path in TABLE:
        counted = "x-ratelimit-limit" in strangers.request(method, filled(path)).headers
        assert counted == (path != "/health/live"), (method, path)


def test_a_limit_of_nothing_is_none(module_database_url: str, valkey_url: str, tmp_path: Path) -> None:
    with serving(tmp_path, module_database_url, valkey_url, limits=UNLIMITED) as door:
        assert "x-ratelimit-limit" not in door.client("").get("/api/v1/search?q=mug").headers


@contextmanager
def a_valkey(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server of this test alone."""
    command = valkey_command(folder, port, durable=False)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


def test_while_valkey_is_unavailable_everybody_is_admitted_and_it_is_counted(
    module_database_url: str, tmp_path: Path
) -> None:
    port, fewer = free_port(), FEW.model_copy(update={"reads": 10})
    with (
        a_valkey(tmp_path, port) as process,
        serving(tmp_path, module_database_url, f"redis://127.0.0.1:{port}/0", limits=fewer) as door,
        httpx.Client(base_url=door.url, timeout=30) as client,
    ):
        assert client.get("/api/v1/tags").headers["x-ratelimit-limit"] == "10"
        os.kill(process.pid, signal.SIGSTOP)  # it takes connections and responds to nothing
        for _ in range(15):
            response = client.get("/api/v1/tags")
            assert (response.status_code, "x-ratelimit-limit" in response.headers) == (200, False)
        assert open_failures(client) >= 15
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(PROBE_SECONDS * 3)
        assert "x-ratelimit-limit" in client.get("/api/v1/tags").headers
    with serving(tmp_path, module_database_url, f"redis://127.0.0.1:{port}/0", limits=FEW) as door:
        statuses = {door.client("").get("/api/v1/tags").status_code for _ in range(30)}
        assert (statuses, open_failures(door.client(""))) == ({200}, 31)  # and the one that asks
        assert open_failures(door.client(""), "failed_keys") == 0
        assert door.client("drk_abcd_of-nobody").get("/api/v1/me").status_code == 401
        assert open_failures(door.client(""), "failed_keys") > 0


def open_failures(client: httpx.Client, what: str = "rate_limits") -> int:
    """How many requests were admitted, or keys looked up, without being counted."""
    lines = client.get("/metrics").text.splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith(f"darkroom_{what}_open_total "))))


def test_pages_of_any_origin_may_ask_and_read_what_clients_need(strict: Door) -> None:
    client = strict.client("")
    client.headers["Origin"] = "https://gallery.example"
    for path in ("/api/v1/models", "/api/v1/models/999999", "/nothing", "/health"):
        headers = client.get(path).headers
        assert headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in headers
        for name in ("X-RateLimit-Remaining", "X-Ignored-Parameters", "ETag", "Upload-Offset", "Tus-Resumable"):
            assert name in headers["access-control-expose-headers"]
    # Few enough for the strict door, on which a preflight counts too.
    for _, path in (*PUBLIC[::4], ("", "/api/v1/me"), ("", "/api/v1/training-jobs")):
        asked = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}
        preflight = client.options(filled(path), headers=asked)
        assert preflight.status_code == 204, path
        assert preflight.headers["access-control-allow-headers"] == "Authorization, *"
        assert "GET" in preflight.headers["access-control-allow-methods"]
