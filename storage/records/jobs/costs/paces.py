"""How fast earlier trainings were."""

from __future__ import annotations

import msgspec


class DevicePace(msgspec.Struct, frozen=True, kw_only=True):
    """Median seconds that an optimizer step took on a device, everything of the job included, over `jobs` jobs."""

    device: str
    jobs: int
    seconds_per_step: float
