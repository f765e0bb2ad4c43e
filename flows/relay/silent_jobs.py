"""The duty silent-jobs: jobs whose process does not report any more get another attempt, or fail."""

from __future__ import annotations

from flows.jobs.sweeps import sweep_silent_jobs
from flows.relay.duty import Duty, once
from storage.stores import Stores

LONGEST_SECONDS = 5.0


def duty(stores: Stores) -> Duty:
    """Sweeps four times, at least, while a job may be silent."""
    settings = stores.settings.jobs
    every = min(LONGEST_SECONDS, settings.silent_after_seconds / 4)
    return Duty("silent-jobs", every, once(lambda: sweep_silent_jobs(stores.database, settings)))
