"""The pause switch of a flow: in Postgres, where everybody who starts flows looks, and beside it in Prefect's pages.

Prefect's own flag cannot be the truth: `prefect deploy` clears it, it starts what it is asked to start all the same,
and it is lost with Prefect's database. So it follows the rows, and a pause that was made with it becomes one of them.
"""

from __future__ import annotations

import logging

from flows.runs.orchestrator import Orchestrator
from storage.errors import NotFound
from storage.postgres.connection import Database
from storage.postgres.upkeep import pauses
from storage.records.metrics.freshness import Switch

log = logging.getLogger("darkroom.pauses")


def pause(database: Database, orchestrator: Orchestrator, flow: str) -> None:
    """Start no more runs of a flow; one that runs ends by itself. Raises PrefectUnavailable with the pause made all the
    same: the relay sets it in Prefect when that is back."""
    # The row first: it holds also while Prefect does not respond, since whoever starts flows asks the row.
    database.run(pauses.add(flow, Switch.DARKROOM))
    follow(database, orchestrator)


def resume(database: Database, orchestrator: Orchestrator, flow: str) -> bool:
    """Let a flow go on with what has waited; returns whether it was paused. Raises PrefectUnavailable, NotFound."""
    deployments = [deployment for deployment in orchestrator.deployments() if deployment.name == flow]
    if not deployments:
        raise NotFound(f"Prefect has no deployment {flow}. Deploy it: `darkroom up` does.")
    # In this order: a look in between takes the flag for a pause in Prefect, which ends with the flag.
    was = database.run(pauses.remove(flow))
    for deployment in deployments:
        orchestrator.set_paused(deployment.id, paused=False)
    return was or any(deployment.paused for deployment in deployments)


# PrefectHQ/prefect#11107 asks that a deploy leave paused what is paused, #14529 for a switch that stops every start.
def follow(database: Database, orchestrator: Orchestrator) -> None:
    """Bring rows and flags in line: a flag without a row is a pause made in Prefect's pages, and ends there too; what
    `darkroom pause` paused is paused in Prefect again, whoever cleared its flag."""
    rows = {pause.flow: pause for pause in database.run(pauses.every())}
    for deployment in orchestrator.deployments():
        row = rows.get(deployment.name)
        if deployment.paused and row is None:
            database.run(pauses.add(deployment.name, Switch.PREFECT))
            log.warning("%s was paused in Prefect", deployment.name)
        # Whoever paused in Prefect's pages resumes there. A pause by command ends by command only, because every deploy
        # clears Prefect's flag.
        elif not deployment.paused and row and row.paused_in is Switch.PREFECT:
            database.run(pauses.remove(deployment.name))
            log.warning("%s was resumed in Prefect", deployment.name)
        elif not deployment.paused and row:
            orchestrator.set_paused(deployment.id, paused=True)
            log.warning("%s is paused in Prefect, as by `darkroom pause`", deployment.name)


def still_paused(database: Database, orchestrator: Orchestrator) -> set[str]:
    """The flows that a deploy is to leave paused: what is in Prefect now, what `darkroom pause` paused, and what was
    paused in a Prefect whose database was lost."""
    flags = {deployment.name: deployment.paused for deployment in orchestrator.deployments()}
    rows = database.run(pauses.every())
    kept = {row.flow for row in rows if row.paused_in is Switch.DARKROOM or row.flow not in flags}
    # Asked before a deploy, which sets every flag to what prefect.yaml says.
    return kept | {name for name, paused in flags.items() if paused}
