"""Training steps on a machine that is also used: alone, and beside one process that is always busy.

    python -m benchmarks.fairness [BASE_MODEL_FOLDER] [--steps 12] [--rounds 2] [--spins 1000,10000]

Each line is one way to run a flow's process: how long OpenMP's threads spin before they sleep, the niceness of the
process and its session (as `darkroom up` sets it), and how many threads. `quiet` is the median step with the machine to
itself, `busy` beside a loop in a session of its own, as a compiler in a terminal is. The ways take turns: each spinning
at the chosen niceness, each niceness and one thread fewer at the chosen spinning. SIZE=full takes every spinning with
every niceness and with one thread fewer, 30 steps and four rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deployments.local.environment import flow_environment
from deployments.local.niceness import step_back
from deployments.local.parts import FLOW_NICENESS
from storage.settings import load_settings

FULL = os.environ.get("SIZE") == "full"
STARTER = Path("deployments/local/starter")
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Way:
    """One way to run a flow's process. `spin`: GOMP_SPINCOUNT, how often a thread looks before it sleeps."""

    spin: int
    niceness: int
    threads: int

    def __str__(self) -> str:
        return f"spin={self.spin},nice={self.niceness},threads={self.threads}"


CHOSEN = Way(int(flow_environment(load_settings())["GOMP_SPINCOUNT"]), FLOW_NICENESS, CORES)
SPINS = (0, 1_000, 3_000, 10_000, 100_000)
NICENESSES = (0, 5, 10)


def ways(spins: tuple[int, ...] = SPINS) -> list[Way]:
    """What is measured, the chosen way among it."""
    fewer = max(1, CORES - 1)
    if FULL:
        every = [Way(spin, niceness, CORES) for spin in spins for niceness in NICENESSES]
        return list(dict.fromkeys([*every, *(Way(spin, CHOSEN.niceness, fewer) for spin in spins), CHOSEN]))
    spinning = [replace(CHOSEN, spin=spin) for spin in spins]
    stepping_back = [replace(CHOSEN, niceness=niceness) for niceness in NICENESSES]
    return list(dict.fromkeys([*spinning, *stepping_back, replace(CHOSEN, threads=fewer), CHOSEN]))


@contextmanager
def busy_neighbour(wanted: bool) -> Iterator[None]:
    """One process that never waits, in a session of its own."""
    if not wanted:
        yield
        return
    # It ends by itself should this process be killed: a loop that nobody stops would slow down everything after it.
    loop = "import time; ends = time.monotonic() + 600\nwhile time.monotonic() < ends: pass"
    neighbour = subprocess.Popen([sys.executable, "-c", loop], start_new_session=True)
    try:
        yield
    finally:
        neighbour.kill()
        neighbour.wait()


def steps_of(way: Way, folder: Path, steps: int, *, busy: bool) -> list[float]:
    """Seconds of each step of a child that is run in this way."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"GOMP_SPINCOUNT": str(way.spin), "OMP_NUM_THREADS": str(way.threads)}
    command = [sys.executable, "-m", "benchmarks.training_steps", str(folder), str(steps), str(way.threads)]
    with busy_neighbour(busy):
        child = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        step_back(child.pid, way.niceness)
        printed, _ = child.communicate()
    if child.returncode != 0:
        raise RuntimeError(f"{way}: the child ended with {child.returncode}")
    return json.loads(printed.splitlines()[-1])


def main() -> None:
    """Measure every way, quiet and busy, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=STARTER)
    parser.add_argument("--steps", type=int, default=30 if FULL else 12)
    parser.add_argument("--rounds", type=int, default=4 if FULL else 2)
    parser.add_argument("--spins", type=lambda text: tuple(int(one) for one in text.split(",")), default=SPINS)
    asked = parser.parse_args()
    measured = ways(asked.spins)
    seconds: dict[tuple[Way, bool], list[float]] = defaultdict(list)
    for _ in range(asked.rounds):
        for way in measured:
            for busy in (False, True):
                seconds[way, busy].append(statistics.median(steps_of(way, asked.folder, asked.steps, busy=busy)))
                print(f"  {way} {'busy' if busy else 'quiet'} {seconds[way, busy][-1]:.3f} s", flush=True)
    best = min(min(rounds) for (_, busy), rounds in seconds.items() if not busy)
    print(f"{asked.folder}, {CORES} cores; ratios to the fastest quiet step, {best:.3f} s")
    print(f"{'way':40} {'quiet s':>8} {'ratio':>6} {'busy s':>8} {'ratio':>6}  rounds (busy)")
    for way in measured:
        quiet, busy = statistics.median(seconds[way, False]), statistics.median(seconds[way, True])
        spread = " ".join(f"{one:.3f}" for one in sorted(seconds[way, True]))
        print(f"{way!s:40} {quiet:8.3f} {quiet / best:6.2f} {busy:8.3f} {busy / best:6.2f}  {spread}")
    quiet, busy = (statistics.median(seconds[CHOSEN, busy]) for busy in (False, True))
    print(f"figure quiet-step {quiet:.3f} {best:.3f} {quiet / best:.2f} goal <=1.10")
    print(f"figure busy-step {busy:.3f} {best:.3f} {busy / best:.2f} goal <=2.50")


if __name__ == "__main__":
    main()
