"""The relay's duties: what each did last, and which of them has not done its work for too long."""

from __future__ import annotations

from datetime import datetime

import msgspec

SILENT_SECONDS = 60.0
"""A duty that has succeeded in no iteration for so long, and for three times its own pace, is reported."""


class DutyReport(msgspec.Struct, frozen=True, kw_only=True):
    """A duty as the relay left it. `silent_seconds`: since its last success, or since the relay began."""

    name: str
    every_seconds: float
    succeeded_at: datetime | None
    failures: int
    error: str | None
    silent_seconds: float

    @property
    def is_failing(self) -> bool:
        """Whether its work has not been done for too long, because it fails or because it hangs."""
        return self.silent_seconds > SILENT_SECONDS + 3 * self.every_seconds


def in_words(duty: DutyReport) -> str:
    """A failing duty in one sentence."""
    why = (
        f"{duty.failures} iterations failed, the last with: {duty.error}"
        if duty.failures
        else "its iteration does not end"
    )
    return f"{duty.name} has not succeeded for {duty.silent_seconds:.0f} s: {why}"
