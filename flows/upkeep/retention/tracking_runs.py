"""What rules do to MLflow: runs that only show how flows fared go; those of jobs, which made models, stay."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage, Run, ViewType
from mlflow.tracking import MlflowClient

from flows.jobs.tracking import JOB_TAG, MLFLOW_UNAVAILABLE, tracking_client
from flows.runs.flow_names import DRAW
from flows.runs.lazy_imports import imported_when_used
from flows.runs.light_tracking import FLOW_TAG, UNTAGGED_EXPERIMENTS
from flows.upkeep.retention.sweep import Sweep
from storage.settings import Settings

if TYPE_CHECKING:
    from flows.upkeep.retention import mlflow_store
else:
    mlflow_store = imported_when_used("flows.upkeep.retention.mlflow_store")  # takes 1.4 s, and most runs erase nothing

PAGE = 200
MARK = "darkroom.retention"
"""Tag of runs that this rule deleted: they alone are erased, not what somebody else deleted and may want back."""


def delete_tracking_runs(sweep: Sweep, setting: str) -> None:
    """Delete the runs of flows that are no job and ended long ago, then erase those that this rule has deleted.

    MLflow's server only marks a run as deleted; its store, on the database, erases it.
    """
    client = tracking_client(sweep.stores.settings)
    before = sweep.moment - sweep.age(setting)
    try:
        for run_id in _old_runs(client, int(before.timestamp() * 1000)):
            sweep.check()
            # Before the deletion, as MLflow tags no deleted run.
            client.set_tag(run_id, MARK, "deleted")
            client.delete_run(run_id)
            sweep.removed.count += 1
        store = _store_url(sweep.stores.settings)
        if store is None:
            variable = "DARKROOM_RETENTION__MLFLOW_STORE_URL"
            sweep.removed.note = f"marked as deleted; to have them erased, give MLflow's database in {variable}"
            return
        _erase(sweep, client, store)
    except MLFLOW_UNAVAILABLE as error:
        sweep.removed.note = f"MLflow did not respond ({type(error).__name__}); the next run goes on"


def _old_runs(client: MlflowClient, before: int) -> Iterator[str]:
    """Ids of flows' runs without a job that ended before a time (Unix milliseconds)."""
    experiments = _experiments(client)
    wanted = f"attributes.end_time < {before} and attributes.status != 'RUNNING'"
    for run in _found(client, list(experiments), wanted, ViewType.ACTIVE_ONLY):
        ours = FLOW_TAG in run.data.tags or experiments[run.info.experiment_id] in UNTAGGED_EXPERIMENTS
        if ours and not _is_of_a_training(run):
            yield str(run.info.run_id)


def _experiments(client: MlflowClient) -> dict[str, str]:
    """Names of the experiments that are not deleted, by id."""
    return {str(experiment.experiment_id): str(experiment.name) for experiment in client.search_experiments()}


def _found(client: MlflowClient, experiments: list[str], wanted: str, view: int) -> list[Run]:
    """All runs of the experiments, found before any of them is changed."""
    token: str | None = None
    found: list[Run] = []
    while experiments:
        page = client.search_runs(experiments, wanted, view, max_results=PAGE, page_token=token)
        # A page token counts rows that match: deleting while paging would pass over others.
        found += page
        token = page.token
        if not token:
            break
    return found


def _store_url(settings: Settings) -> str | None:
    """Where MLflow's database is; None when only MLflow's server knows."""
    given = settings.retention.mlflow_store_url.get_secret_value()
    if given:
        return given
    if not settings.mlflow_is_embedded:
        return None
    # SQLAlchemy 2.0 takes the bare scheme for psycopg2, which is not installed.
    return settings.embedded_postgres_url("mlflow").replace("postgresql://", "postgresql+psycopg://", 1)


def _erase(sweep: Sweep, client: MlflowClient, url: str) -> None:
    """Not by `mlflow gc`: whatever runs it is given, it erases every deleted experiment and logged model as well."""
    # mlflow/mlflow#25563 would keep `mlflow gc` to the ids that it is given.
    marked = _found(client, list(_experiments(client)), f"tags.`{MARK}` = 'deleted'", ViewType.DELETED_ONLY)
    erased, server = 0, sweep.stores.settings.mlflow.url
    store = mlflow_store.MlflowStore(url, server) if marked else None
    for run in marked:
        sweep.check()
        # Read again just before: somebody may have restored it since the search.
        if store is not None and _may_go(store.read(run.info.run_id)):
            store.erase(run)
            erased += 1
    sweep.removed.note = f"{erased} erased"


def _may_go(run: Run) -> bool:
    """Whether a run is still deleted, by this rule, and no job's."""
    tags = run.data.tags
    return run.info.lifecycle_stage == LifecycleStage.DELETED and MARK in tags and not _is_of_a_training(run)


def _is_of_a_training(run: Run) -> bool:
    """Whether a run is that of a job that may have made a model. A workflow's has its job, too, and made none."""
    return JOB_TAG in run.data.tags and run.data.tags.get(FLOW_TAG) != DRAW
