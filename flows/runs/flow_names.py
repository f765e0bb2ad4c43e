"""Names of flows that others start or wait for by name: asking for one loads nothing of what it does."""

from __future__ import annotations

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
