"""Tests that read a clock, run at ten awkward times: `make soak-clock`.

Debian's libfaketime shifts the time of pytest and of all it starts, Postgres and Valkey with it. Every process gets the
same distance from the true time, so that they agree; what waits and measures (CLOCK_MONOTONIC) is left alone.

libfaketime 0.9.10 moves the absolute times of clock_nanosleep() although that clock is left alone, and Python sleeps
with those: every `time.sleep` fails with EINVAL. So each Python process of such a run sleeps in select() instead.

What it cannot shift is left out by name (`LEFT_OUT`): the times of files, which the kernel gives, and the timers of
Postgres. While epoll waits, libfaketime shows the true time to a signal handler, so that a timer finds that it is early
by the whole shift, and sets itself again: no statement, lock or deadlock times out.

`python -m tests.shifted_clocks leap-day tests/flows` runs one clock over some tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

CLOCKS = {
    "midnight": ("2027-03-09 23:59:00", "UTC"),
    "after-midnight": ("2027-03-10 00:00:05", "UTC"),
    "first-quarter": ("2027-03-10 10:14:00", "UTC"),
    "half-past": ("2027-03-10 10:29:00", "UTC"),
    "last-quarter": ("2027-03-10 15:44:00", "UTC"),
    "full-hour": ("2027-03-10 21:59:00", "UTC"),
    "end-of-month": ("2027-04-30 23:59:00", "UTC"),
    "leap-day": ("2028-02-29 12:00:00", "UTC"),
    "clocks-forward": ("2027-03-28 01:59:00", "Europe/Berlin"),
    "clocks-back": ("2027-10-31 02:59:00", "Europe/Berlin"),
}
"""When a run begins, and where: mostly a minute before what it is named for, since tests begin after some seconds.
22:00 UTC is when tomorrow's leader boards can be made."""
SLEEP = "import select, time\ntime.sleep = lambda seconds: select.select([], [], [], seconds) and None\n"
"""The sitecustomize.py of every Python process under a shifted clock."""
MIGRATING = "tests/storage/postgres/test_migrating.py"
LEFT_OUT = (
    # -- times of files
    "tests/deployments/commands/upkeep/test_key_rotation.py::test_links_are_not_cut_short_by_a_second_rotation",
    "tests/flows/upkeep/test_sweep_interleavings.py::test_no_sweep_takes_bytes_from_a_put_that_found_them",
    "tests/storage/blobs/test_store.py::test_a_listing_says_the_names_in_order_with_their_sizes_and_ages",
    # -- timers of Postgres
    "tests/flows/upkeep/test_reconcile.py::test_an_invariant_that_takes_too_long_is_named_and_hides_no_other",
    "tests/storage/postgres/test_lookup_tables.py::test_tables_that_somebody_holds_are_waited_for_and_then_named",
    f"{MIGRATING}::test_a_lock_that_is_not_free_is_let_go_and_tried_again",
    f"{MIGRATING}::test_a_migration_that_gets_no_lock_says_who_holds_it_and_leaves_nothing",
    f"{MIGRATING}::test_a_slow_statement_is_refused_unless_the_file_says_why",
    f"{MIGRATING}::test_an_index_that_was_cut_short_is_made_again",
    f"{MIGRATING}::test_a_killed_starter_holds_up_nobody",
    f"{MIGRATING}::test_a_stopped_starter_is_put_out_and_one_that_waits_says_for_whom",
)
SELECTED = "clock and not platform and not soak"


def library() -> Path:
    """What stands between a program and the clock. Ends the run with the next step when it is not installed."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not found:
        sys.exit("libfaketime is not installed; on Debian: apt-get install libfaketime")
    return found[0]


def environment(start: str, zone: str, customized: str) -> dict[str, str]:
    """What shifts the clock of a program and its children, so that it is `start` now. `customized` is the folder with
    their sitecustomize.py."""
    wanted = datetime.fromisoformat(start).replace(tzinfo=ZoneInfo(zone))
    shift = wanted.timestamp() - time.time()
    return {
        **os.environ,
        "LD_PRELOAD": str(library()),
        "FAKETIME": f"{shift:+.0f}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "PYTHONPATH": customized,
        "TZ": zone,
    }


def run(name: str, tests: list[str]) -> int:
    """Run the tests under one clock; returns pytest's status."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        SELECTED,
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "loadfile",
    ]
    command += [f"--deselect={test}" for test in LEFT_OUT]
    sys.stdout.write(f"== {name}: {' '.join(CLOCKS[name])}\n")
    sys.stdout.flush()
    with tempfile.TemporaryDirectory(prefix="clock-") as customized:
        Path(customized, "sitecustomize.py").write_text(SLEEP)
        shifted = environment(*CLOCKS[name], customized)
        return subprocess.run([*command, *tests], env=shifted, check=False).returncode


def main(arguments: list[str]) -> None:
    """Run under the clocks that are named first, all when none is, the tests that are named after them."""
    names = [argument for argument in arguments if argument in CLOCKS] or list(CLOCKS)
    tests = [argument for argument in arguments if argument not in CLOCKS]
    failed = [name for name in names if run(name, tests)]
    sys.exit(f"Failed under: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
