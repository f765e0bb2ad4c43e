"""Every state of a job with every state of its steps has one word of Civitai's."""

from __future__ import annotations

import pytest

from storage.records.generation.workflow_rows import StepState
from storage.records.jobs.jobs import JobState
from storage.records.orchestration.statuses import step_statuses, workflow_status

WAITING, RUNNING, SUCCEEDED = StepState.WAITING, StepState.RUNNING, StepState.SUCCEEDED


@pytest.mark.parametrize(
    ("state", "steps", "whole", "each"),
    [
        (JobState.SUBMITTED, [WAITING, WAITING], "unassigned", ["unassigned", "unassigned"]),
        (JobState.RUNNING, [WAITING, WAITING], "preparing", ["preparing", "scheduled"]),
        (JobState.RUNNING, [RUNNING, WAITING], "processing", ["processing", "scheduled"]),
        (JobState.RUNNING, [SUCCEEDED, WAITING], "processing", ["succeeded", "preparing"]),
        (JobState.SUBMITTED, [SUCCEEDED, WAITING], "scheduled", ["succeeded", "unassigned"]),
        (JobState.CANCELLING, [RUNNING, WAITING], "processing", ["processing", "scheduled"]),
        (JobState.SUCCEEDED, [SUCCEEDED, SUCCEEDED], "succeeded", ["succeeded", "succeeded"]),
        (JobState.FAILED, [StepState.FAILED, StepState.CANCELLED], "failed", ["failed", "canceled"]),
        (JobState.CANCELLED, [StepState.CANCELLED] * 2, "canceled", ["canceled", "canceled"]),
    ],
)
def test_states_in_their_words(state: JobState, steps: list[StepState], whole: str, each: list[str]) -> None:
    assert (workflow_status(state, steps), step_statuses(state, steps)) == (whole, each)
