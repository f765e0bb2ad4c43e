"""What rules do to MLflow: runs that only show how flows fared go; those of jobs, which made models, stay."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow.cli
from mlflow.entities import ViewType
from mlflow.tracking import MlflowClient

from flows.tracking import JOB_TAG, Away, tracking_client
from flows.upkeep.sweep import Sweep
from storage.settings import Settings

PAGE = 200
ERASED_AT_ONCE = 100


def delete_tracking_runs(sweep: Sweep, setting: str) -> None:
    """Delete the runs of flows that are no job and ended long ago, then erase what MLflow holds as deleted.

    MLflow's server only marks a run as deleted; `mlflow gc`, on its database, erases it.
    """
    client = tracking_client(sweep.stores.settings)
    before = sweep.moment - sweep.age(setting)
    try:
        for run_id in _old_runs(client, int(before.timestamp() * 1000)):
            sweep.check()
            client.delete_run(run_id)
            sweep.removed.count += 1
        store = _store_url(sweep.stores.settings)
        if store is None:
            sweep.removed.note = "marked as deleted; erase them with `mlflow gc` where MLflow's database is"
            return
        _erase(sweep, client, store)
    except Away as error:
        sweep.removed.note = f"MLflow did not answer ({type(error).__name__}); the next run goes on"


def _old_runs(client: MlflowClient, before: int) -> Iterator[str]:
    """Ids of runs without a job that ended before a time (Unix milliseconds)."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    wanted = f"attributes.end_time < {before} and attributes.status != 'RUNNING'"
    token: str | None = None
    found: list[str] = []
    while experiments:
        page = client.search_runs(experiments, wanted, max_results=PAGE, page_token=token)
        found += [str(run.info.run_id) for run in page if JOB_TAG not in run.data.tags]
        token = page.token
        if not token:
            break
    yield from found


def _store_url(settings: Settings) -> str | None:
    """Where MLflow's database is; None when only MLflow's server knows."""
    given = settings.retention.mlflow_store_url.get_secret_value()
    if given:
        return given
    if settings.mlflow.url != settings.mlflow.embedded_url:
        return None
    return settings.embedded_postgres_url("mlflow").replace("postgresql://", "postgresql+psycopg://", 1)


def _erase(sweep: Sweep, client: MlflowClient, store: str) -> None:
    """In this process, so that the URL and its password stand in no command line."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    erased = 0
    while experiments:
        sweep.check()
        deleted = client.search_runs(experiments, run_view_type=ViewType.DELETED_ONLY, max_results=ERASED_AT_ONCE)
        if not deleted:
            break
        chosen = ",".join(str(run.info.run_id) for run in deleted)
        words = ["--backend-store-uri", store, "--run-ids", chosen, "--tracking-uri", sweep.stores.settings.mlflow.url]
        mlflow.cli.gc.main(args=words, standalone_mode=False)
        erased += len(deleted)
    sweep.removed.note = f"{erased} erased"
