"""The catalogue's reads: requests a second and waiting times, beside a bare handler and FastAPI with SQLAlchemy.

    python -m benchmarks.catalogue           5,000 models or MODELS=n; SIZE=full for 100,000
    CACHE=off python -m benchmarks.catalogue

One uvicorn process each, as `darkroom up` starts it. The bare one is a Litestar handler that returns the same bytes
back; FastAPI asks the same questions through mapped classes (benchmarks/fastapi_catalogue.py). One client asks all
three in turns, so that what else the machine does falls on each; a figure is the median of the turns. Cold is the
first time that anything is asked for, warm every later one. Beside requests a second stands the processor time that
the server's own process takes for one: on a machine that does other things it says more. The limits of requests are
off, and searches have no peer: the bare handler alone stands beside them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import quote_plus

import numpy as np
import psutil
import psycopg
from pydantic import SecretStr

from benchmarks import bare_catalogue, fastapi_catalogue
from benchmarks.load import Timing, fetch, load
from benchmarks.search_catalogue import WORDS, fill_catalogue
from deployments.local.servers.postgres import EmbeddedPostgres
from deployments.local.servers.valkey import valkey_command
from flows.indexing.new_builds import ensure_live_builds
from flows.indexing.rebuild import rebuild
from storage.postgres.migrating import migrate
from storage.records.search.search import Kind
from storage.settings import PostgresSettings, SearchSettings, Settings
from storage.stores import open_stores
from tests.conftest import free_port

FULL = os.environ.get("SIZE") == "full"
MODELS = 100_000 if FULL else int(os.environ.get("MODELS", "5000"))
TURNS, DISTINCT = (7, 200) if FULL else (5, 50)
PORTIONS = {"list": 500, "detail": 1500, "by-hash": 1500, "search": 100}
"""Requests of one turn, by what is asked."""
BARE_GOAL, FASTAPI_GOAL = 0.6, 2.0


def paths() -> dict[str, list[str]]:
    """What is asked for, by kind."""
    chance = np.random.default_rng(5)
    ids = [int(number) for number in chance.choice(np.arange(1, MODELS + 1), DISTINCT, replace=False)]
    words = [" ".join(chance.choice(WORDS, 1)) for _ in range(20)]
    return {
        "list": [f"/api/v1/models?limit={limit}" for limit in range(100, 90, -1)],
        "detail": [f"/api/v1/models/{number}" for number in ids],
        "by-hash": [f"/api/v1/model-versions/by-hash/{number:064X}" for number in ids],
        "search": [f"/api/v1/search?q={quote_plus(text)}" for text in words],
    }


def fill(url: str) -> None:
    """The search benchmark's catalogue, with an image for every version and a place for every model in every list."""
    fill_catalogue(url, MODELS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("set session_replication_role = replica")
        connection.execute(
            "insert into images (version_id, account_id, position, sha256, size, media_type, width, height, blurhash)"
            " select version.id, model.account_id, 1, lpad(to_hex(version.id), 64, 'f'), 90000, 'image/png', 512, 512,"
            " 'L0' from model_versions version join models model on model.id = version.model_id"
        )
        connection.execute(
            "insert into sort_keys (list, k1, k2, item_id) select list, k1, k2, item_id from catalogue_places"
        )
        connection.execute("vacuum analyze")


@dataclass
class Server:
    """A uvicorn process."""

    port: int
    process: psutil.Process

    def load(self, asked: list[str], count: int) -> tuple[Timing, float]:
        """The timing of some requests, and the microseconds of processor time that each took here."""
        before = self.process.cpu_times()
        timing = load(self.port, asked, count)
        after = self.process.cpu_times()
        return timing, (after.user + after.system - before.user - before.system) / count * 1e6


@contextlib.contextmanager
def serving(module: str, environment: dict[str, str]) -> Iterator[Server]:
    """A uvicorn process that serves requests."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", module, "--factory", "--port", str(port), "--no-access-log"]
    process = subprocess.Popen(
        [*command, "--log-level", "warning", "--no-proxy-headers"],
        env={**os.environ, **environment},
        stderr=subprocess.DEVNULL,  # a line for each request
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                fetch(port, "/health" if "platform_api" in module else "/docs" if "fastapi" in module else "/ready")
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(timeout=20)


def ours_environment(folder: Path, database: str, valkey: str) -> dict[str, str]:
    """The settings of our API."""
    return {
        "DARKROOM_DATA_FOLDER": str(folder),
        "DARKROOM_POSTGRES__URL": database,
        "DARKROOM_REDIS__URL": valkey,
        "DARKROOM_SEARCH__ENCODER_FOLDER": "off",
        "DARKROOM_API__SIGNING_KEY": "bench",
        **{f"DARKROOM_LIMITS__{kind}": "0" for kind in ("READS", "WRITES", "SEARCHES", "DOWNLOADS")},
        **({"DARKROOM_CACHE__ENABLED": "false"} if os.environ.get("CACHE") == "off" else {}),
    }


def compare(ours: Server, bare: Server, fastapi: Server, kind: str, asked: list[str]) -> None:
    """Print one kind's figures: ours cold, then all of them warm and in turns."""
    count, peered = PORTIONS[kind], kind != "search"
    rows: dict[str, list[tuple[Timing, float]]] = {"ours, cold": [ours.load(asked, len(asked))]}
    for _ in range(TURNS):
        rows.setdefault("ours, warm", []).append(ours.load(asked, count))
        rows.setdefault("bare", []).append(bare.load([f"/{kind}"], count))
        if peered:
            rows.setdefault("FastAPI", []).append(fastapi.load(asked, max(20, count // 25)))
    for name, turns in rows.items():
        print(
            f"{kind:<9}{name:<12}{median(t.rate for t, _ in turns):>9.0f}/s"
            f"   p50 {median(t.p50 for t, _ in turns):>7.1f} ms   p99 {median(t.p99 for t, _ in turns):>7.1f} ms"
            f"   processor {median(spent for _, spent in turns):>7.0f} us",
            flush=True,
        )
    mine = rows["ours, warm"]
    for peer, goal in (("bare", BARE_GOAL), ("FastAPI", FASTAPI_GOAL)):
        if peer not in rows:
            continue
        rate, theirs = (median(timing.rate for timing, _ in turns) for turns in (mine, rows[peer]))
        spent, their_time = (median(spent for _, spent in turns) for turns in (mine, rows[peer]))
        stated = f" goal >={goal}" if peered else ""
        print(f"figure {kind}_of_{peer.lower()} {rate:.0f} {theirs:.0f} {rate / theirs:.2f}{stated}", flush=True)
        print(
            f"figure {kind}_processor_us_{peer.lower()} {spent:.0f} {their_time:.0f} {their_time / spent:.2f}",
            flush=True,
        )


def main() -> None:
    """Print the table and the figures."""
    with (
        tempfile.TemporaryDirectory(prefix="dr-") as name,
        EmbeddedPostgres(Path(name) / "postgres", durable=False).serving() as server,
    ):
        folder, port = Path(name), free_port()
        server.create_databases(["bench"])
        url = server.url("bench")
        migrate(url)
        fill(url)
        settings = Settings(
            data_folder=folder,
            postgres=PostgresSettings(url=SecretStr(url)),
            search=SearchSettings(encoder_folder="off"),
        )
        with open_stores(settings) as stores:
            ensure_live_builds(stores)
            rebuild(stores, Kind.MODEL)
        print(f"{MODELS:,} models, {TURNS} turns, cache {os.environ.get('CACHE', 'on')}", flush=True)
        valkey = subprocess.Popen(valkey_command(folder, port, durable=False), stdout=subprocess.DEVNULL)
        bodies = folder / "bodies"
        bodies.mkdir()
        (bodies / "ready").write_bytes(b"{}")
        environment = ours_environment(folder, url, f"redis://127.0.0.1:{port}/2")
        try:
            with serving("platform_api.app:app_from_environment", environment) as ours:
                for kind, asked in paths().items():
                    (bodies / kind).write_bytes(fetch(ours.port, asked[0]))
            with (
                serving("platform_api.app:app_from_environment", environment) as ours,
                serving("benchmarks.bare_catalogue:app", {bare_catalogue.FOLDER: str(bodies)}) as bare,
                serving("benchmarks.fastapi_catalogue:app", {fastapi_catalogue.DATABASE: url}) as fastapi,
            ):
                for kind, asked in paths().items():
                    compare(ours, bare, fastapi, kind, asked)
        finally:
            valkey.terminate()
            valkey.wait()


if __name__ == "__main__":
    main()
