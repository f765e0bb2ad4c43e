"""Whether there is room for pictures: a full disk fails no workflow, it makes them wait.

Nothing new is claimed while a disk has less free space than the floor, nor for a while after a store has refused bytes:
what would be drawn could not be kept. A workflow whose picture or row finds no room is submitted again, with the
pictures that it has.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from flows.jobs.lifecycle import RunningJob, write_end
from flows.runs.run_logs import run_logger
from storage.backoff import pause_after
from storage.errors import DiskFull, StoreUnavailable
from storage.free_space import shortage
from storage.postgres.jobs import jobs
from storage.settings import Settings

_log = partial(run_logger, "darkroom.generation")

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 15.0, 300.0
"""How long nothing is claimed after a store has refused bytes: twice as long each time, until a workflow finds room."""
PLACES = ("blobs", "database")
"""The volumes that pictures and their rows take room of."""


class NoRoomForPictures(StoreUnavailable):
    """A store has refused bytes of a workflow, which is submitted again."""

    code = "no_room_for_pictures"


class PictureRoom:
    """What is known of room, for the threads of one process."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._refusals, self._until = 0, float("-inf")
        self._reason = ""

    def is_there(self) -> bool:
        """Whether more may be claimed. A change is logged."""
        with self._lock:
            if time.monotonic() < self._until:
                return False
            found = shortage(self._settings, PLACES)
            reason = str(found) if found else ""
            if bool(reason) != bool(self._reason):
                if reason:
                    _log().error("no workflow is claimed: %s", reason)
                else:
                    _log().info("there is room again: workflows are claimed")
            self._reason = reason
            return not reason

    @contextmanager
    def released_when_full(self, job: RunningJob) -> Generator[None]:
        """Submit a job again whose block finds no room. Raises NoRoomForPictures then."""
        try:
            yield
        except DiskFull as error:
            pause = self._refused()
            _log().error("job %s is submitted again, and no workflow claimed for %.0f s: %s", job.id, pause, error)
            write_end(job, lambda: jobs.release(job.id, job.attempt))
            raise NoRoomForPictures(str(error)) from error
        with self._lock:
            self._refusals = 0

    def _refused(self) -> float:
        with self._lock:
            now = time.monotonic()
            # Those that are drawn at the same time find the same disk full.
            if now >= self._until:
                self._refusals += 1
                self._until = now + pause_after(self._refusals, FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
            self._reason = "a store has refused bytes"
            return self._until - now
