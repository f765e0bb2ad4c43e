"""How processes give way to others on a busy machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

AUTOGROUP_TRIES = 5
AUTOGROUP_SECONDS = 0.1
"""So often an account other than root may set one."""


def step_back(pid: int, niceness: int) -> None:
    """Make a process that leads its session, and all it has started and will start, step back behind the others.

    Done once it is healthy: on a busy machine it would hardly get to start otherwise. Linux shares the processor
    between sessions first (sched_autogroup): there, niceness alone counts inside one only.
    """
    os.setpriority(os.PRIO_PGRP, pid, niceness)
    autogroup = Path(f"/proc/{pid}/autogroup")
    for _ in range(AUTOGROUP_TRIES if autogroup.exists() else 0):
        try:
            autogroup.write_text(str(niceness))
        except BlockingIOError:
            time.sleep(AUTOGROUP_SECONDS)
        else:
            return
