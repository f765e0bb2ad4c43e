"""Prefect automations, kept in code and brought in line by name.

They are for people who read Prefect's pages. Nothing that must be right depends on one: jobs are watched by their own
heartbeat in Postgres.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger
from prefect.events.actions import ActionTypes, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, Posture

# Three times PREFECT_FLOWS_HEARTBEAT_FREQUENCY of deployments.local.environment.
SILENT_AFTER = timedelta(seconds=90)


def silent_runs_are_crashed() -> AutomationCore:
    """A flow run whose heartbeat has stopped is marked Crashed, as after a loss of power, when nobody else does."""
    crash: ActionTypes = ChangeFlowRunState(
        name=None,
        state=StateType.CRASHED,
        message=f"No heartbeat for {SILENT_AFTER.seconds} s; its process is gone.",
        force=False,  # a run that has ended meanwhile stays as it is
    )
    return AutomationCore(
        name="darkroom: silent flow runs are crashed",
        description="A flow process that dies together with its worker says nothing any more.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},  # pyright: ignore[reportArgumentType]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=SILENT_AFTER,
        ),
        actions=[crash],
    )


AUTOMATIONS: Sequence[AutomationCore] = (silent_runs_are_crashed(),)


def deploy_automations(client: SyncPrefectClient) -> None:
    """Create what is missing and overwrite what is there, by name. Repeatable."""
    for wanted in AUTOMATIONS:
        present: list[Automation] = client.read_automations_by_name(wanted.name)  # pyright: ignore[reportAssignmentType]
        if not present:
            client.create_automation(wanted)
        ids = [known.id for known in present if known.id is not None]
        for identity in ids[:1]:
            client.update_automation(identity, wanted)
        for double in ids[1:]:
            client.delete_automation(double)
