"""States of jobs and steps in the words of Civitai's orchestration."""

from __future__ import annotations

from enum import StrEnum

from storage.records.generation.workflow_rows import StepState
from storage.records.jobs.jobs import JobState


class Status(StrEnum):
    """Where a workflow, a step or a step's job stands. The last four never change; `expired` nothing is here."""

    UNASSIGNED = "unassigned"
    PREPARING = "preparing"
    SCHEDULED = "scheduled"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELED = "canceled"


_ENDED = {
    JobState.SUCCEEDED: Status.SUCCEEDED,
    JobState.FAILED: Status.FAILED,
    JobState.CANCELLED: Status.CANCELED,
}
_STEP_ENDED = {
    StepState.SUCCEEDED: Status.SUCCEEDED,
    StepState.FAILED: Status.FAILED,
    StepState.CANCELLED: Status.CANCELED,
}


def workflow_status(state: JobState, steps: list[StepState]) -> Status:
    """Nobody has it: unassigned; somebody has, and nothing is drawn yet: preparing."""
    if state in _ENDED:
        return _ENDED[state]
    begun = any(step is not StepState.WAITING for step in steps)
    if state is JobState.SUBMITTED:
        # Released by a process that stopped, with pictures that stay.
        return Status.SCHEDULED if begun else Status.UNASSIGNED
    return Status.PROCESSING if begun else Status.PREPARING


def step_statuses(state: JobState, steps: list[StepState]) -> list[Status]:
    """The first step that waits is being prepared while somebody has the workflow; those behind it are scheduled."""
    found: list[Status] = []
    for step in steps:
        if step in _STEP_ENDED:
            found.append(_STEP_ENDED[step])
        elif state is JobState.SUBMITTED:
            found.append(Status.UNASSIGNED if step is StepState.WAITING else Status.SCHEDULED)
        elif step is StepState.RUNNING:
            found.append(Status.PROCESSING)
        else:
            open_before = any(status not in _STEP_ENDED.values() for status in found)
            found.append(Status.SCHEDULED if open_before else Status.PREPARING)
    return found
