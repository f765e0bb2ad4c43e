"""Prefect automations, kept in code and brought in line by name.

They are for people who read Prefect's pages; of each firing the relay makes an alert (`flows.relay.prefect_alerts`).
Nothing that must be right depends on one: jobs are watched by their own heartbeat in Postgres, days by freshness.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing
from prefect.events.schemas.automations import AutomationCore, Posture

from flows.relay.prefect_alerts import CRASHED_BY_US, FAIL, OURS, SILENT, STAY_LATE

# Three times PREFECT_FLOWS_HEARTBEAT_FREQUENCY of deployments.local.environment.
SILENT_AFTER = timedelta(seconds=90)
# Prefect calls a run Late 15 s after its time; a worker that has its hands full takes it a little later.
LATE_FOR = timedelta(minutes=3)
# Flows that keep things up to date. Jobs wait for their turn as intended, and their owners are notified of their end.
# Its type is ignored where it is given: a dict of texts is no dict of texts or lists to the checker, though pydantic
# takes it.
UPKEEP = {"prefect.resource.role": "work-pool", "prefect.resource.name": "light"}


def silent_runs_are_crashed(within: timedelta = SILENT_AFTER) -> AutomationCore:
    """A flow run whose heartbeat has stopped is marked Crashed, as after a loss of power, when nobody else does.

    It also fires for a run that ended well, or failed, and whose last heartbeat reached the server after its end. The
    run stays as it is (`force` is off), and the relay makes no alert of it.
    """
    # PrefectHQ/prefect issue 16746: otherwise runs whose worker has died stay Running, and keep their places in the
    # pool.
    crash: ActionTypes = ChangeFlowRunState(
        name=None,
        state=StateType.CRASHED,
        message=f"{CRASHED_BY_US} {within.seconds} s; its process is gone.",
        # PrefectHQ/prefect issue 18653: heartbeats that arrive after the end.
        force=False,  # a run that has ended meanwhile stays as it is
    )
    return AutomationCore(
        name=f"{OURS}{SILENT}",
        description="A flow process that dies together with its worker says nothing any more.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[crash],
    )


def late_runs_are_reported(within: timedelta = LATE_FOR) -> AutomationCore:
    """A run that has become Late and does not begin for a while more: no worker takes it."""
    return AutomationCore(
        name=f"{OURS}{STAY_LATE}",
        description="The relay notifies moderators, since a missing worker would not.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Late"},
            expect={"prefect.flow-run.*"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related=UPKEEP,  # pyright: ignore[reportArgumentType]
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[DoNothing()],
    )


def failed_runs_are_reported() -> AutomationCore:
    """A run that did not do what it was started for."""
    return AutomationCore(
        name=f"{OURS}{FAIL}",
        description="The relay notifies moderators, once an hour for each flow.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.TimedOut", "prefect.flow-run.Crashed"},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            match_related=UPKEEP,  # pyright: ignore[reportArgumentType]
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=[DoNothing()],
    )


AUTOMATIONS: Sequence[AutomationCore] = (
    silent_runs_are_crashed(),
    late_runs_are_reported(),
    failed_runs_are_reported(),
)


def deploy_automations(client: SyncPrefectClient) -> None:
    """Create what is missing and overwrite what is there, by name. Repeatable."""
    for wanted in AUTOMATIONS:
        # Ignored: Prefect has two classes of this name, and its client returns the other one.
        present: list[Automation] = client.read_automations_by_name(wanted.name)  # pyright: ignore[reportAssignmentType]
        if not present:
            client.create_automation(wanted)
        ids = [known.id for known in present if known.id is not None]
        for identity in ids[:1]:
            client.update_automation(identity, wanted)
        for double in ids[1:]:
            client.delete_automation(double)
