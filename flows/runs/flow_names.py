"""Names of flows that others start or wait for by name: asking for one loads nothing of what it does."""

from __future__ import annotations

from storage.records.jobs.jobs import JobKind

SYNC = "sync-search-index"
"""The flow, the lock of whoever drains, and the row in `drain_wakeups`."""
REBUILD = "rebuild-search-index"
DELIVER = "deliver-notifications"
"""The flow, the lock of whoever drains, and the row in `drain_wakeups`."""
FAN_OUT = "fan-out-notifications"
"""The flow, the lock of whoever drains, and the row in `drain_wakeups`."""
APPLY_RETENTION = "apply-retention"
"""The flow, and the lock of its one run."""
BACK_UP = "back-up"
DRAW = "generate-images"
"""The flow, the lock of whoever drains, and the row in `drain_wakeups`."""
JOB_FLOWS: dict[JobKind, str] = {JobKind.TRAINING: "train-dreambooth", JobKind.GENERATION: DRAW}
"""Which flow carries out which kind of job, deployed under its own name. One run of `DRAW` draws for many jobs."""
