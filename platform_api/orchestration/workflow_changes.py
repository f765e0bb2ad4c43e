"""What callers change of a workflow: they cancel it, and tag it."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from storage.errors import InvalidRequest
from storage.postgres.connection import Script
from storage.postgres.jobs import jobs
from storage.records.jobs.jobs import JobState
from storage.records.orchestration.templates import MAX_TAGS


def cancelled(workflow_id: UUID, account_id: UUID) -> Script[None]:
    """Cancel a workflow; one that is cancelled already stays so. Raises WrongState for one that has ended otherwise."""
    job = yield from jobs.get_for_account(workflow_id, account_id)
    if job.state is not JobState.CANCELLED:
        yield from jobs.cancel(workflow_id, account_id)


def tags_of(tags: Sequence[str]) -> list[str]:
    """Tags as they are kept: each once."""
    return list(dict.fromkeys(tags))


def check_tags(tags: Sequence[str]) -> None:
    """Raises InvalidRequest for more tags than a workflow has."""
    if len(tags_of(tags)) > MAX_TAGS:
        raise InvalidRequest({"tags": f"a workflow has at most {MAX_TAGS}; take one off first"})
