"""Events that Prefect or Postgres refused: whether the event is at fault, or the whole server is unavailable.

An event that is refused keeps its place, and the iteration ends: most likely the server is unavailable. After REFUSALS
it is passed over, and the iteration goes on with later events. When one of them succeeds at the same server, the
refused event is at fault, and the failure counts against it; else it keeps its place as before.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager

from flows.runs.orchestrator import PrefectUnavailable
from storage.errors import DiskFull, StoreFailure, StoreUnavailable
from storage.postgres.connection import Database
from storage.postgres.events import outbox

log = logging.getLogger("darkroom.relay")

REFUSALS = 3
"""An event that was refused so often is passed over."""

Refusal = PrefectUnavailable | StoreUnavailable | DiskFull
PASSING = (PrefectUnavailable, StoreUnavailable, DiskFull)
"""What passes without a change of the event: nothing of it counts as a failure by itself."""


class RelayRefusals:
    """What was refused, since this process began and in the present iteration."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts = Counter[int]()
        self._passed: dict[int, Refusal] = {}
        self._unreturned: dict[int, str] = {}
        self._prefect_worked = self._postgres_worked = False

    @contextmanager
    def iteration(self) -> Generator[None]:
        """One iteration. What was passed over in it is judged at its end.

        Raises StoreFailure while the places of earlier iterations cannot be returned, and the refusal of what was
        passed over when nothing shows that the event is at fault.
        """
        self._return_places()
        # Per iteration: that a server worked an hour ago says nothing about a refusal now.
        self._passed, self._prefect_worked, self._postgres_worked = {}, False, False
        try:
            yield
        finally:
            blamed = {event: error for event, error in self._passed.items() if self._worked_for_others(error)}
            unclear = {event: error for event, error in self._passed.items() if event not in blamed}
            for event, error in unclear.items():
                self.keep_places([event], error)
            for event, error in blamed.items():
                log.warning("event %d was refused while others were not: %s: %s", event, error.code, error)
                if self._database.run(outbox.failed(event, f"{error.code}: {error}")):
                    log.error("event %d is given up: it was refused each time", event)
                    self.forget(event)
        for error in unclear.values():
            raise error

    def refused(self, events: Sequence[int], error: Refusal) -> bool:
        """Note that events were refused; returns whether the first was so often that others are to be tried."""
        if isinstance(error, DiskFull):  # it is full for all of them
            return False
        self._counts.update(events)
        return self._counts[events[0]] >= REFUSALS

    def pass_over(self, event: int, error: Refusal) -> None:
        """Leave an event until the iteration ends, also when its claim runs out before: a try may take longer."""
        self._passed[event] = error

    @property
    def passed(self) -> list[int]:
        """The events that were passed over in this iteration, which are not to be claimed again in it."""
        return list(self._passed)

    def keep_places(self, events: Sequence[int], error: Refusal) -> None:
        """Make events due again at once, and take back the failure that their claim counted; later if need be."""
        for event in events:
            self._unreturned[event] = str(error)
        try:
            self._return_places()
        except StoreFailure as failure:
            log.warning("%d events keep their places later: %s: %s", len(self._unreturned), failure.code, failure)

    def prefect_worked(self) -> None:
        """Prefect did what one event asked for."""
        self._prefect_worked = True

    def forget(self, *events: int) -> None:
        """These events had their effect, or are given up."""
        self._postgres_worked = True
        for event in events:
            self._counts.pop(event, None)

    def _worked_for_others(self, error: Refusal) -> bool:
        return self._prefect_worked if isinstance(error, PrefectUnavailable) else self._postgres_worked

    def _return_places(self) -> None:
        """Raises StoreFailure, with what is not returned yet still noted."""
        for error in sorted(set(self._unreturned.values())):
            events = [event for event, reason in self._unreturned.items() if reason == error]
            self._database.run(outbox.wait_no_longer(error, *events))
            for event in events:
                del self._unreturned[event]
