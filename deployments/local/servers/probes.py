"""Whether a part of the platform does its work, as seen from outside. No probe raises; each returns True or False."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import httpx
import psutil

from deployments.local.servers.prefect_http import PrefectAuth
from storage.settings import PrefectSettings

# A probe gets the pid of the part's process: some responses only count when they come from that process.
Probe = Callable[[int], bool]
SECONDS = 3.0
# One client for all: each new one reads the certificates of the world, for 30 ms of processor time.
_CLIENT = httpx.Client(timeout=SECONDS, limits=httpx.Limits(max_keepalive_connections=0))


def http_probe(url: str, *, post: dict[str, Any] | None = None, auth: tuple[str, str] | None = None) -> Probe:
    """Healthy when `url` returns 200 (to a POST of `post`, if given). auth: user and password."""
    signed = httpx.BasicAuth(*auth) if auth else None

    def probe(_pid: int) -> bool:
        return _content_of(url, post, signed) is not None

    return probe


def valkey_probe(address: Path, password: Path) -> Probe:
    """Healthy when the Valkey on a unix socket responds to PING, which it does not while it loads its file. `password`:
    the file that holds it."""

    def probe(_pid: int) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(SECONDS)
                connection.connect(str(address))
                connection.sendall(b"AUTH " + password.read_bytes().strip() + b"\r\nPING\r\n")
                with connection.makefile("rb") as replies:
                    return [replies.readline(), replies.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    return probe


def engine_probe(address: Path) -> Probe:
    """Healthy when this very process says on a unix socket what it holds."""
    # No certificates: nothing is encrypted within a machine.
    limits = httpx.Limits(max_keepalive_connections=0)
    transport = httpx.HTTPTransport(uds=str(address), verify=False, limits=limits)
    client = httpx.Client(transport=transport, timeout=SECONDS, trust_env=False)

    def probe(pid: int) -> bool:
        found = _content_of("http://engine/status", client=client)
        return isinstance(found, dict) and cast(dict[str, object], found).get("pid") == pid

    return probe


def polls(prefect: PrefectSettings, pool: str, worker: str) -> Probe:
    """Healthy when this very worker process has reported to Prefect's server that it polls `pool`."""

    auth = PrefectAuth(prefect)

    def probe(pid: int) -> bool:
        found = _content_of(f"{prefect.api_url}/work_pools/{pool}/workers/filter", {"limit": 200}, auth)
        seen = [entry["last_heartbeat_time"] for entry in found or [] if entry["name"] == worker]
        try:
            # The server remembers a worker by its name: only a heartbeat of after this process began is its own.
            return bool(seen) and datetime.fromisoformat(seen[0]).timestamp() >= psutil.Process(pid).create_time()
        except psutil.NoSuchProcess:
            return False

    return probe


def lives_for(seconds: float) -> Probe:
    """Healthy when the process is there and older than `seconds`: for a part that listens on nothing."""

    def probe(pid: int) -> bool:
        try:
            return datetime.now(UTC).timestamp() - psutil.Process(pid).create_time() >= seconds
        except psutil.NoSuchProcess:
            return False

    return probe


def _content_of(
    url: str, post: dict[str, Any] | None = None, auth: httpx.Auth | None = None, client: httpx.Client = _CLIENT
) -> Any | None:
    """The JSON (or text) of a 200 response; None for everything else."""
    try:
        request = client.build_request("GET" if post is None else "POST", url, json=post)
        response = client.send(request, auth=auth)
    except httpx.HTTPError:
        return None
    if response.status_code != 200:
        return None
    return response.json() if "json" in response.headers.get("content-type", "") else response.text
