"""@flow reconcile: compares the stores with each other, Prefect, MLflow and search; repairs what is safe, reports all.

It takes no arguments and is safe at any time. A second run on a quiet system reports nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect import flow
from prefect.client.orchestration import get_client

from flows.indexing import builds
from flows.indexing.new_builds import ensure_live_builds
from flows.jobs.sweeps import publish_due, replace_dead_flow_runs, sweep_silent_jobs
from flows.runs.artifacts import leave_table
from flows.runs.lazy_imports import imported_when_used
from flows.runs.orchestrator import Orchestrator, PrefectUnavailable
from flows.runs.run_logs import run_logger
from flows.upkeep.blob_sweep import faulty_blobs, sweep_blobs
from storage.errors import (
    DarkroomError,
    StoreFailure,
    StoreUnavailable,
)
from storage.postgres.locks import RECONCILE
from storage.postgres.metrics import rollups
from storage.postgres.search import search_builds, search_queue
from storage.postgres.upkeep import invariants
from storage.records.search.search import BuildState
from storage.settings import load_settings
from storage.stores import Stores, open_stores

if TYPE_CHECKING:
    from flows.upkeep import tracking_repairs
else:
    tracking_repairs = imported_when_used("flows.upkeep.tracking_repairs")


class ReconcileIncomplete(DarkroomError):
    """A comparison of the stores broke off by a fault of ours; the others were made."""

    code = "reconcile_incomplete"


NAMED = 20
"""So many totals that differed are named one by one."""
ACCOUNTS = 1000
"""About so many accounts have their bytes summed in one run: all of them in turn."""


@flow(name="reconcile")
def reconcile() -> list[str]:
    """Compare Postgres with the blob store, Prefect and MLflow; repair what is safe and report every difference."""
    log = run_logger("darkroom.reconcile")
    # A run may take longer than the ten minutes between two: waiting for it, runs would pile up and hold the light
    # pool.
    with open_stores(load_settings()) as stores, stores.database.session_lock(RECONCILE) as held:
        if not held:
            log.info("another run compares the stores")
            return []
        compared = compare_stores(stores)
    findings = [*compared.findings, *compared.broken]
    log.info("%d differences", len(findings))
    for finding in findings:
        log.warning("%s", finding)
    if findings:
        leave_table("reconcile", [{"difference": finding} for finding in findings])
    if compared.broken:
        raise ReconcileIncomplete(
            f"{' '.join(compared.broken)} The others were made. If the next runs say the same, the log above has the "
            "place in the code: report it."
        )
    return findings


@dataclass(frozen=True)
class Comparison:
    """findings: a sentence for each difference, repaired or not. broken: one for each comparison that did not end."""

    findings: list[str]
    broken: list[str]


def compare_stores(stores: Stores) -> Comparison:
    """Make every comparison; one that breaks stops no other. Raises StoreUnavailable, PrefectUnavailable."""
    log = run_logger("darkroom.reconcile")
    findings: list[str] = []
    broken: list[str] = []
    steps = (
        *(publish_scheduled, reconcile_prefect, reconcile_blobs),
        *(tracking_repairs.reconcile_tracking, reconcile_search, reconcile_counts),
    )
    for compare in steps:
        try:
            findings += compare(stores)
        # Not a finding: what could not be asked differs in nothing that is known, and the next run comes in ten
        # minutes.
        except (StoreUnavailable, PrefectUnavailable):
            raise
        except Exception as error:  # a fault of ours: the flow fails with it once the others are made
            log.exception("%s did not end", compare.__name__)
            broken.append(f"{compare.__name__} did not end: {type(error).__name__}: {error}.")
    findings += (f"{fault} (not repaired)" for fault in broken_invariants(stores, ACCOUNTS))
    return Comparison(findings, broken)


def broken_invariants(stores: Stores, accounts: int | None = None) -> list[str]:
    """One sentence for every row that breaks an invariant, and for every invariant that could not be checked.

    `accounts`: about so many have their bytes summed. Raises StoreUnavailable.
    """
    faults: list[str] = []
    # One statement each, so that one that takes too long is a finding by name and hides no other.
    for name in invariants.SENTENCES:
        try:
            faults += stores.database.run(invariants.broken(names=[name], accounts=accounts))
        except StoreUnavailable:
            raise
        except StoreFailure as error:
            faults.append(f"invariant {name} could not be checked: {error}")
    return faults


def check_invariants(stores: Stores) -> list[str]:
    """One sentence for each fault of the rows, of the bytes they name and of the search indexes; empty when all holds.

    Repairs nothing.
    """
    faults = broken_invariants(stores)
    try:
        faults += faulty_blobs(stores)
    except StoreUnavailable as error:
        faults.append(f"the blob store cannot be compared with the rows: {error}")
    try:
        return faults + builds.index_faults(stores)
    except StoreFailure as error:
        return [*faults, f"search cannot be compared with the rows: {error}"]


def publish_scheduled(stores: Stores) -> list[str]:
    """Publish what was scheduled for a time that has come and that no relay has published."""
    published = publish_due(stores.database)
    return [f"{published} models and versions were scheduled for a time that had come: published"] if published else []


def reconcile_prefect(stores: Stores) -> list[str]:
    """Give a new attempt to jobs that fell silent or lost their flow run before it began."""
    database, jobs_settings = stores.database, stores.settings.jobs
    moved = [f"job {job.id} was silent: now {job.state}" for job in sweep_silent_jobs(database, jobs_settings)]
    # Prefect's own client, which reads the environment: this runs inside a flow run, whose worker has signed in there.
    with get_client(sync_client=True) as prefect:
        replaced = replace_dead_flow_runs(database, Orchestrator(prefect), jobs_settings)
    return moved + [f"job {job.id} lost its flow run: now {job.state}" for job in replaced]


def reconcile_blobs(stores: Stores) -> list[str]:
    """Delete bytes that no row has named for the grace period; report rows whose bytes are gone."""
    try:
        return sweep_blobs(stores)
    except StoreUnavailable as error:
        return [f"{error}"]


def reconcile_search(stores: Stores) -> list[str]:
    """Drop indexes that nobody reads any more, make the one that is missing, write again what differs from the rows."""
    findings: list[str] = []
    try:
        builds.drop_retired(stores)
        findings += [f"search index {number} was named by no row: dropped" for number in builds.drop_strays(stores)]
        for build in ensure_live_builds(stores):
            findings.append(f"searches of {build.kind} had no index: made")
        for build in stores.database.run(search_builds.of_engine(stores.search.engine)):
            # What waits in the queue may differ.
            if build.state is BuildState.LIVE and not stores.database.run(search_queue.lag()).waiting:
                repaired = builds.repair(stores, build)
                if repaired:
                    findings.append(f"{repaired} {build.kind} differed in the search index: written again")
    except StoreFailure as error:
        findings.append(f"{error}")
    return findings


def reconcile_counts(stores: Stores) -> list[str]:
    """Compare totals and the catalogue's counts of the next entities in the round with the days; write what differs."""
    compared = stores.database.run(rollups.compare())
    findings = [
        f"{total.metric} of {total.entity} {total.entity_id} in the last 7, 30, 365 days and in all were "
        f"{_amounts(total.was)}, its days sum to {_amounts(total.now)}: written again"
        for total in compared.totals[:NAMED]
    ]
    if len(compared.totals) > NAMED:
        findings.append(f"{len(compared.totals) - NAMED} more totals differed from their days: written again")
    if compared.counts:
        findings.append(f"{compared.counts} counts of the catalogue differed from their totals: written again")
    return findings


def _amounts(amounts: tuple[int | None, ...]) -> str:
    return ", ".join("none" if amount is None else str(amount) for amount in amounts)
