"""One run of retention: its moment by Postgres' clock, how long it may go on, and what each rule has deleted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from flows.runs.flow_names import APPLY_RETENTION
from flows.runs.retries import run_with_retries
from storage.errors import DarkroomError
from storage.postgres.connection import Query, Script
from storage.postgres.upkeep import pauses, retention
from storage.stores import Stores

log = logging.getLogger("darkroom.retention")

BATCH = 5000
"""Rows that one transaction deletes."""
LOOK_SECONDS = 5.0
# A wrong clock must not decide what is old: deleted is deleted. Clocks that are kept in time drift by far less.
CLOCKS_APART = timedelta(hours=1)
CLOCK_STEP = timedelta(minutes=2)


class ClockJumped(DarkroomError):
    """A clock is not to be believed: what looks old may be new. Nothing (more) is deleted."""

    code = "clock_jumped"


class Enough(Exception):
    """A rule's share of the run's time is over: what is left is done later."""


class Paused(Exception):
    """The flow is paused: the next run goes on."""


@dataclass
class Removed:
    """What went by one rule: rows or things, and bytes where they are known. `note` is shown beside them."""

    count: int = 0
    size: int = 0
    note: str = ""


class Sweep:
    """What the rules of one run share. Ages are taken from one moment, so none changes while the run goes on."""

    def __init__(self, stores: Stores, moment: datetime, seconds: float) -> None:
        """moment: Postgres' clock at the start. seconds: how long the run may go on."""
        self.stores, self.moment = stores, moment
        self.removed = Removed()
        self._began = time.monotonic()
        self._ends, self._looked = self._began + seconds, 0.0
        self._share_ends = self._ends

    def share(self, among: int) -> None:
        """Give the next rule its part of the time that is left among so many: a long backlog holds up no other rule."""
        now = time.monotonic()
        self._share_ends = now + (self._ends - now) / among

    @property
    def over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._ends

    def run(self, script: Callable[[], Query[int] | Script[int]]) -> int:
        """What a script returns; waits while Postgres is unavailable. Raises as `check` does."""
        self.check()
        return run_with_retries(self.stores, script, self.check)

    def check(self) -> None:
        """Raise Enough when the rule's time is over, Paused with the flow, ClockJumped when Postgres' clock did
        not go on evenly meanwhile."""
        now = time.monotonic()
        if now >= self._share_ends:
            raise Enough("its time was over")
        # `check` is called for each file; a question to Postgres each time would be most of the work.
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        if run_with_retries(self.stores, lambda: pauses.is_paused(APPLY_RETENTION)):
            raise Paused("it is paused")
        passed = run_with_retries(self.stores, retention.now) - self.moment
        # The monotonic clock is the witness: nobody sets it.
        steady = timedelta(seconds=time.monotonic() - self._began)
        if abs(passed - steady) > CLOCK_STEP:
            raise ClockJumped(
                f"Postgres' clock moved by {passed} while {steady} passed. Nothing more is deleted: set it right."
            )

    def value(self, setting: str) -> float:
        """The value of a setting by its dotted name."""
        group, name = setting.split(".")
        return float(getattr(getattr(self.stores.settings, group), name))

    def age(self, setting: str) -> timedelta:
        """How long a setting (in days or hours, by the end of its name) keeps things."""
        value = self.value(setting)
        return timedelta(hours=value) if setting.endswith("_hours") else timedelta(days=value)

    def delete_rows(self, table: str, age: timedelta) -> None:
        """Delete rows of a table that are older than `age`, batch by batch, each a short transaction."""
        before = self.moment - age
        while True:
            gone = self.run(partial(retention.delete_batch, table, before, BATCH))
            self.removed.count += gone
            if gone < BATCH:
                return


def begin(stores: Stores, seconds: float) -> Sweep:
    """A run that begins now. Raises ClockJumped when Postgres' clock and this machine's are far apart."""
    # Postgres' clock, since it has written the times that ages are compared with.
    moment = run_with_retries(stores, retention.now)
    apart = abs(moment - datetime.now(moment.tzinfo))
    if apart > CLOCKS_APART:
        raise ClockJumped(
            f"Postgres' clock and this machine's are {apart} apart. Nothing was deleted. Set the wrong one right; "
            "retention goes on by itself."
        )
    return Sweep(stores, moment, seconds)
