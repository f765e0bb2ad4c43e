"""What Darkroom adds to Prefect: POST to the committed claim, beside a bare deployment on the same server.

    python -m benchmarks.overhead            SIZE=full for more runs

The bare deployment's module has the training flow's third-party imports and an empty body; its time runs from the
client's call to the body's first line. Ours runs from the POST to the claim that Postgres committed. The bare one runs
twice a turn: on our worker, which forks it warm as it does ours, and on Prefect's own worker, which starts an
interpreter (with the same poll of one second). All take turns. Importing the two modules is also measured apart.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID, uuid4

from prefect.client.orchestration import SyncPrefectClient

from benchmarks.bare_flow import bare
from deployments.local.environment import flow_environment, shared_environment
from flows.runs.orchestrator import open_prefect
from tests.deployments.platform import Platform, running_platform
from tests.faults.bench import Bench, Points, add_tiny_base

TURNS = 15 if os.environ.get("SIZE") == "full" else 4
MODULES = {"ours": "flows.training.dreambooth_steps", "bare": "benchmarks.bare_flow"}


def wait(what: str, value: Callable[[], Any], seconds: float = 180.0) -> Any:
    """The first true value that comes."""
    deadline = time.monotonic() + seconds
    while not (found := value()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited too long for {what}")
        time.sleep(0.05)
    return found


def time_bare(prefect: SyncPrefectClient, deployment: Any, folder: Path) -> float:
    """Seconds from the call to the first line of an empty flow."""
    marker = folder / uuid4().hex
    begin = time.time()
    run = prefect.create_flow_run_from_deployment(deployment, parameters={"marker": str(marker)})
    wait("the bare flow", marker.exists)
    wait("its end", lambda: (state := prefect.read_flow_run(run.id).state) and state.is_final())
    return float(marker.read_text()) - begin


def time_ours(bench: Bench) -> float:
    """Seconds from the POST to the committed claim."""
    begin = time.time()
    job_id = bench.submit(steps=1, regularizationCount=1, checkpointEvery=1, sampleEvery=1)
    claimed = datetime.fromisoformat(str(wait("the claim", lambda: bench.job(job_id)["startedAt"])))
    bench.wait_for_end(job_id)
    return claimed.timestamp() - begin


@contextmanager
def prefects_own_worker(platform: Platform, prefect: SyncPrefectClient) -> Generator[str]:
    """A worker as `prefect worker start` makes it, with a pool of its own; yields the pool's name."""
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "plain", "--type", "process"]
    settings = platform.settings
    environment = shared_environment(settings, "worker-plain") | flow_environment(settings)
    process = subprocess.Popen(command, env=environment, cwd=platform.folder, stdout=subprocess.DEVNULL)
    try:
        wait("the plain pool", lambda: [pool for pool in prefect.read_work_pools() if pool.name == "plain"])
        yield "plain"
    finally:
        process.kill()
        process.wait()


def deploy_bare(prefect: SyncPrefectClient, pool: str) -> UUID:
    """The bare flow's deployment into a pool."""
    return prefect.create_deployment(
        flow_id=prefect.create_flow(bare),
        name=f"bare-{pool}",
        entrypoint="benchmarks.bare_flow.bare",
        work_pool_name=pool,
        pull_steps=[],
        # Our pools bring their command; Prefect's own template would fetch code first.
        job_variables={"command": "python -m prefect.engine"} if pool == "plain" else {},
    )


def import_seconds(module: str) -> float:
    """Seconds that a fresh interpreter takes to import a module."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
    return time.perf_counter() - begin


def main() -> None:
    """Measure in turns and print a table, then the figures."""
    rows: dict[str, list[float]] = {"ours": [], "bare": [], "plain": []}
    imports: dict[str, list[float]] = {"ours": [], "bare": []}
    with (
        tempfile.TemporaryDirectory() as name,
        running_platform() as platform,
        open_prefect(platform.settings.prefect) as prefect,
        prefects_own_worker(platform, prefect) as plain_pool,
    ):
        folder = Path(name)
        add_tiny_base(platform, folder)
        bench = Bench(platform, Points(folder))
        warm, plain = deploy_bare(prefect, "training"), deploy_bare(prefect, plain_pool)
        time_ours(bench)  # fills the regularization set and the base's floor
        time_bare(prefect, warm, folder)
        for _ in range(TURNS):
            rows["plain"].append(time_bare(prefect, plain, folder))
            rows["bare"].append(time_bare(prefect, warm, folder))
            rows["ours"].append(time_ours(bench))
    for _ in range(3):
        for who, module in MODULES.items():
            imports[who].append(import_seconds(module))
    print(f"{'seconds':<28}{'median':>8}{'min':>8}{'max':>8}   of {TURNS} turns")
    for label, table in (("start to claim", rows), ("import of the module", imports)):
        for who, values in table.items():
            print(f"{label + ', ' + who:<28}{median(values):>8.2f}{min(values):>8.2f}{max(values):>8.2f}")
    for figure, table, peer_name, goal in (
        ("start_to_claim_s", rows, "plain", "<=1.2"),
        ("start_to_claim_same_worker_s", rows, "bare", "<=1.2"),
        ("import_s", imports, "bare", "<=1.2"),
    ):
        ours, peer = median(table["ours"]), median(table[peer_name])
        print(f"figure {figure} {ours:.2f} {peer:.2f} {ours / peer:.2f} goal {goal}")


if __name__ == "__main__":
    main()
