"""Why a step cannot be drawn, and how long it is tried while what draws it does not respond."""

from __future__ import annotations

import time
from dataclasses import dataclass
from signal import SIGTERM

from prefect.exceptions import TerminationSignal

from storage.backoff import pause_after
from storage.errors import BackendRefused, JobCannotSucceed, QuotaExceeded, StoreUnavailable
from storage.records.generation.workflow_rows import FailedTries
from storage.settings import variable_of

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 30.0
MAX_TRIES = 10
"""So often in a row a backend may begin a step and fail before a picture more is kept: what it draws may be what kills
it, and others with it."""


class StepRefused(JobCannotSucceed):
    """No backend can draw a step."""

    code = "step_refused"


class SourceGone(JobCannotSucceed):
    """A picture that a step goes on from is not there any more."""

    code = "source_gone"


class BackendsUnavailable(JobCannotSucceed):
    """What could draw a step has not responded for too long, or failed each time it began."""

    code = "backends_unavailable"


class AccountFull(JobCannotSucceed):
    """The account may not hold the next picture."""

    code = "account_full"


class GivesWay(TerminationSignal):
    """A workflow has to stop for one of another account. As what stops the process it releases its job."""

    def __init__(self) -> None:
        super().__init__(signal=SIGTERM)

    def __str__(self) -> str:
        return "another account waits, which has fewer that are drawn"


@dataclass(frozen=True)
class Postponed:
    """A step is not drawn on now, but after `pause` seconds: what could draw it does not respond, or it gives way."""

    reason: str
    pause: float
    tries: FailedTries


def full(step: str, error: QuotaExceeded) -> AccountFull:
    """The failure of a step whose next picture has no room."""
    return AccountFull(f"Step '{step}' was not drawn to its end. {error} Then retry the job.")


def refused(step: str, error: BackendRefused) -> StepRefused:
    """The failure of a step that no backend can draw."""
    return StepRefused(f"Step '{step}' was not drawn. {error}. Ask for something else, and retry.")


class BackendPatience:
    """How long one step is tried. Each picture that is kept begins it again."""

    def __init__(self, step: str, minutes: float, before: FailedTries) -> None:
        """`before`: what failed in earlier attempts; the time between them counts, too."""
        self._step, self._minutes = step, minutes
        self._failures, self._begun = before.failures, before.begun
        self._since = time.monotonic() - before.seconds if before.failures else None

    def begins(self) -> None:
        """The step is given to a backend, which responds: the time that it draws is no silence."""
        self._begun += 1
        self._since = None

    def drew(self) -> bool:
        """A picture is kept. Returns whether something had failed before it."""
        had_failed = self._failures > 0
        self._failures, self._begun, self._since = 0, 0, None
        return had_failed

    @property
    def tries(self) -> FailedTries:
        """What has failed in a row."""
        seconds = 0.0 if self._since is None else time.monotonic() - self._since
        return FailedTries(failures=self._failures, begun=self._begun, seconds=seconds)

    def pause_after(self, error: StoreUnavailable) -> float:
        """Seconds to wait after a failure that may pass. Raises BackendsUnavailable when it has been too long."""
        now = time.monotonic()
        self._failures += 1
        self._since = now if self._since is None else self._since
        if self._begun >= MAX_TRIES:
            raise BackendsUnavailable(
                f"Step '{self._step}' was begun {self._begun} times, and what draws it failed each time: {error} "
                "Look at its log, then retry the job."
            ) from error
        if now - self._since > self._minutes * 60:
            raise BackendsUnavailable(
                f"Nothing that can draw step '{self._step}' has responded for {self._minutes:g} minutes "
                f"({variable_of('generation', 'unavailable_minutes')}): {error} Retry the job when it is back."
            ) from error
        return pause_after(self._failures, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
