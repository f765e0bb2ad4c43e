"""Many clients at once: how long a submission and a read wait for their response while a job trains, and a cancel.

    python -m benchmarks.burst               SIZE=full for 50 submissions of 40 jobs

A fifth of the submissions repeat an earlier Idempotency-Key. From a second before the first submission on,
readers ask for the list of jobs, one job and the lists of models and base models, until the given number of reads is
done; a training runs beside them on the same cores. It is cancelled at the end, and its process watched until it is
gone. Beside each figure stands its goal: 1 s for the slowest submission, 100 ms for the 99th percentile of reads, 10 s
for a cancel.
"""

from __future__ import annotations

import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from statistics import median, quantiles
from uuid import uuid4

import httpx
import psutil

from tests.deployments.platform import running_platform
from tests.faults.bench import Bench, Points, add_tiny_base

FULL = os.environ.get("SIZE") == "full"
SUBMISSIONS, JOBS = (50, 40) if FULL else (10, 8)
READS = 3000 if FULL else 600
READERS = 2
SUBMISSION_GOAL_SECONDS, READ_GOAL_SECONDS, CANCEL_GOAL_SECONDS = 1.0, 0.1, 10.0


def submit(bench: Bench, key: str) -> tuple[str, float]:
    """One submission: the job's id and the seconds until its response."""
    began = time.perf_counter()
    job_id = bench.submit(key=key, steps=1, regularizationCount=1, checkpointEvery=1, sampleEvery=1)
    return job_id, time.perf_counter() - began


def read(bench: Bench, paths: list[str], count: int) -> list[float]:
    """Seconds of `count` reads of the paths in turn, a pause of 20 ms between two, on one connection."""
    seconds: list[float] = []
    headers = dict(bench.client.headers)
    with httpx.Client(base_url=str(bench.client.base_url), headers=headers, timeout=30) as client:
        for path in cycle(paths):
            began = time.perf_counter()
            client.get(path).raise_for_status()
            seconds.append(time.perf_counter() - began)
            if len(seconds) == count:
                return seconds
            time.sleep(0.02)
    return seconds


def cancel(bench: Bench, job_id: str) -> float:
    """Seconds from the call that cancels a training until its process is gone."""
    processes = bench.platform.flow_processes()
    began = time.perf_counter()
    bench.client.post(f"/training-jobs/{job_id}/cancel").raise_for_status()
    _, alive = psutil.wait_procs(processes, timeout=120)
    if alive or not processes:
        raise RuntimeError(f"{len(alive)} of {len(processes)} flow processes are there after two minutes.")
    return time.perf_counter() - began


def main() -> None:
    """Submit at once, read meanwhile, print a table, then the figures."""
    keys = [uuid4().hex for _ in range(JOBS)]
    keys += keys[: SUBMISSIONS - JOBS]
    with tempfile.TemporaryDirectory() as name, running_platform() as platform:
        folder = Path(name)
        add_tiny_base(platform, folder)
        bench = Bench(platform, Points(folder))
        first = bench.submit(steps=20_000, checkpointEvery=20_000, sampleEvery=20_000)
        bench.wait_for("its fit", lambda: (bench.job(first)["progress"] or {}).get("step", 0) > 10)
        paths = ["/training-jobs", f"/training-jobs/{first}", "/models", "/base-models"]
        with ThreadPoolExecutor(SUBMISSIONS + READERS) as pool:
            readers = [pool.submit(read, bench, paths, READS // READERS) for _ in range(READERS)]
            time.sleep(1.0)
            responses = list(pool.map(lambda key: submit(bench, key), keys))
            reads = [seconds for reader in readers for seconds in reader.result()]
        cancelling = cancel(bench, first)
    made = len({job_id for job_id, _ in responses})
    if made != JOBS:
        raise RuntimeError(f"{SUBMISSIONS} submissions with {JOBS} keys made {made} jobs.")
    waits = [seconds for _, seconds in responses]
    p99 = quantiles(reads, n=100)[98]
    print(f"{'seconds':<28}{'median':>8}{'p99':>8}{'max':>8}")
    print(f"{f'{SUBMISSIONS} submissions':<28}{median(waits):>8.3f}{'':>8}{max(waits):>8.3f}")
    print(f"{f'{len(reads)} reads':<28}{median(reads):>8.3f}{p99:>8.3f}{max(reads):>8.3f}")
    for figure, ours, goal in (
        ("slowest_submission_s", max(waits), SUBMISSION_GOAL_SECONDS),
        ("read_p99_s", p99, READ_GOAL_SECONDS),
        ("cancel_to_process_gone_s", cancelling, CANCEL_GOAL_SECONDS),
    ):
        print(f"figure {figure} {ours:.3f} {goal:.3f} {ours / goal:.2f} goal <=1")


if __name__ == "__main__":
    main()
