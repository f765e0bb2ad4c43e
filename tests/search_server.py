"""A real Elasticsearch for tests: the one that ELASTICSEARCH_URL names, else one started from ../shared."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from elasticsearch import Elasticsearch

FOLDER = Path(__file__).resolve().parents[2] / "shared" / "elasticsearch"
START_SECONDS = 120
PATIENT_BREAKER = {"indices.breaker.total.limit": "100%"}
"""Its collector begins when the heap is full; at the usual 95 %, nothing would be let in that fills it."""


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The server's URL. `folder` keeps the data of one that is started here; it is stopped at the end."""
    url = os.environ.get("ELASTICSEARCH_URL", "")
    if url:
        yield url
        return
    if not (FOLDER / "start").exists():
        pytest.skip(
            "no Elasticsearch: set ELASTICSEARCH_URL, or put the test server at ../shared/elasticsearch beside this "
            "repository"
        )
    # With a shifted clock (tests/shifted_clocks.py) its JVM spins in a timed wait and never starts. It needs none:
    # which write is the newer is said by our revisions.
    kept = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    environment = {"ES_HEAP": "512m", **kept, "PYTHON": sys.executable}
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.log").open("wb") as log:
        process = subprocess.Popen(
            [FOLDER / "start", folder, "0"], env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        address = f"http://{_address(folder, process)}"
        with Elasticsearch(address) as client:
            client.cluster.put_settings(persistent=PATIENT_BREAKER)
        yield address
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:  # it finishes a large merge first, of data that nobody wants any more
            process.kill()
            process.wait()


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    ports = folder / "logs" / "http.ports"
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if ports.exists() and (lines := ports.read_text().split()):
            return lines[0]
        time.sleep(0.1)
    raise RuntimeError(f"Elasticsearch did not start:\n{(folder / 'output.log').read_text()[-2000:]}")
