"""What a flow shows on its page in Prefect. A thread sends it: work never waits for Prefect, nor fails with it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from storage.settings import Settings
from storage.signing import job_image_link

log = logging.getLogger("darkroom.artifacts")

PROGRESS_SECONDS = 2.0
RUN_DAYS = 30
"""What a flow run itself may take; Prefect counts the days that it keeps one from its end."""


class ArtifactBoard:
    """The artifacts of one flow run. Use as a context manager inside the flow; no method waits or raises."""

    def __init__(self) -> None:
        self._posts: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._progress_id: UUID | None = None
        self._progress_at = 0.0
        context = copy_context()  # artifacts belong to the flow run that the thread would else not know
        self._sender = threading.Thread(target=lambda: context.run(self._send), name="artifacts", daemon=True)

    def __enter__(self) -> ArtifactBoard:
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._posts.put(None)
        # Bounded: pictures of a run are not worth holding its end for a Prefect that hangs.
        self._sender.join(timeout=10)

    def progress(self, share: float, description: str) -> None:
        """Move the progress bar to `share` (0 to 1), at most every two seconds and at the end."""
        now = time.monotonic()
        if share < 1 and now - self._progress_at < PROGRESS_SECONDS:
            return
        self._progress_at = now
        self._posts.put(lambda: self._show_progress(round(share * 100, 1), description))

    def image(self, key: str, url: str | None, description: str) -> None:
        """Show an image that the reader's browser can load; nothing without an address."""
        if url is not None:
            self._posts.put(lambda: create_image_artifact(image_url=url, key=key, description=description))

    def table(self, key: str, rows: Sequence[dict[str, Any]], description: str) -> None:
        """Show a table."""
        self._posts.put(lambda: create_table_artifact(table=list(rows), key=key, description=description))

    def markdown(self, key: str, text: str, description: str) -> None:
        """Show a text."""
        self._posts.put(lambda: create_markdown_artifact(text, key=key, description=description))

    def link(self, key: str, url: str, text: str) -> None:
        """Show a link."""
        self._posts.put(lambda: create_link_artifact(link=url, link_text=text, key=key))

    def _show_progress(self, percent: float, description: str) -> None:
        # One artifact that moves, not one for each step: each new one is a row, and 25 ms or more of Prefect's.
        if self._progress_id is None:
            made = create_progress_artifact(percent, key="progress", description=description)
            self._progress_id = cast(UUID, made)  # a coroutine only where a loop runs; this thread has none
        else:
            update_progress_artifact(self._progress_id, percent, description)

    def _send(self) -> None:
        while (post := self._posts.get()) is not None:
            try:
                post()
            except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
                log.warning("an artifact was not shown: %s", type(error).__name__)


def leave_table(key: str, rows: Sequence[dict[str, Any]]) -> None:
    """Show one table on the page of the flow run, if this is one. It never fails what it shows the metrics of."""
    # Outside of a flow run there is no page.
    if flow_run.id:
        with ArtifactBoard() as board:
            board.table(key, rows, "")


def image_link(settings: Settings, job_id: UUID, sha256: str) -> str | None:
    """A signed address of an image that a job made, for the page of its flow run: it holds as long as that page is
    kept. None while there is no signing key.

    It opens what the job's owner may see at the moment of looking, so it ends with the file, the ban of its owner, the
    take-down or deletion of its model and, for the grid, which shows photos, the deletion of the data set. No picture
    is put into the page itself, where a deletion would not reach it.
    """
    api = settings.api
    if not api.signing_keys:
        return None
    expires = int(time.time()) + (settings.retention.flow_run_days + RUN_DAYS) * 86400
    return api.public_url + job_image_link(job_id, sha256, expires, api.signing_keys)
