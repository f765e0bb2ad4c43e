"""States of jobs and steps in the words of Civitai's orchestration."""

from __future__ import annotations

from enum import StrEnum

from storage.records.generation.workflow_rows import StepState
from storage.records.jobs.jobs import JobState


class WorkflowStatus(StrEnum):
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
    JobState.SUCCEEDED: WorkflowStatus.SUCCEEDED,
    JobState.FAILED: WorkflowStatus.FAILED,
    JobState.CANCELLED: WorkflowStatus.CANCELED,
}
_STEP_ENDED = {
    StepState.SUCCEEDED: WorkflowStatus.SUCCEEDED,
    StepState.FAILED: WorkflowStatus.FAILED,
    StepState.CANCELLED: WorkflowStatus.CANCELED,
}


def workflow_status(state: JobState, steps: list[StepState]) -> WorkflowStatus:
    """Nobody has it: unassigned; somebody has, and nothing is drawn yet: preparing."""
    if state in _ENDED:
        return _ENDED[state]
    begun = any(step is not StepState.WAITING for step in steps)
    if state is JobState.SUBMITTED:
        # Released by a process that stopped, with pictures that stay.
        return WorkflowStatus.SCHEDULED if begun else WorkflowStatus.UNASSIGNED
    return WorkflowStatus.PROCESSING if begun else WorkflowStatus.PREPARING


def step_statuses(state: JobState, steps: list[StepState]) -> list[WorkflowStatus]:
    """The first step that waits is being prepared while somebody has the workflow; those behind it are scheduled."""
    found: list[WorkflowStatus] = []
    for step in steps:
        if step in _STEP_ENDED:
            found.append(_STEP_ENDED[step])
        elif state is JobState.SUBMITTED:
            found.append(WorkflowStatus.UNASSIGNED if step is StepState.WAITING else WorkflowStatus.SCHEDULED)
        elif step is StepState.RUNNING:
            found.append(WorkflowStatus.PROCESSING)
        else:
            open_before = any(status not in _STEP_ENDED.values() for status in found)
            found.append(WorkflowStatus.SCHEDULED if open_before else WorkflowStatus.PREPARING)
    return found
