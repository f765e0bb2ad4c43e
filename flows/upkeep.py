"""What a run of a flow that keeps things up to date leaves behind: figures in MLflow, and a table in Prefect's pages.

One MLflow experiment for each flow, one tracking run for each of its runs, so that an operator sees trends. Neither
MLflow nor Prefect holds the flow up: what they do not take is missing there and nowhere else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
from mlflow.entities import Metric, RunTag
from prefect.artifacts import create_table_artifact
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run

from flows.tracking import Away, experiment_id, tracking_client
from storage.settings import Settings

log = logging.getLogger("darkroom.upkeep")

FLOW_RUN_TAG = "prefect.flow_run_id"


def note_run(
    settings: Settings, flow: str, figures: Mapping[str, float], table: Sequence[Mapping[str, Any]] = ()
) -> str | None:
    """Keep the figures of a run of `flow`; `table` is what it did, a row each. Gives MLflow's id of the tracking run.

    None when MLflow is away.
    """
    if flow_run.id and table:
        _show(flow, table)
    now = int(time.time() * 1000)
    try:
        client = tracking_client(settings)
        run = client.create_run(experiment_id(client, flow), tags={FLOW_RUN_TAG: flow_run.id or ""})
        metrics = [Metric(name, float(value), now, 0) for name, value in figures.items()]
        client.log_batch(run.info.run_id, metrics=metrics, tags=[RunTag("flow", flow)])
        client.set_terminated(run.info.run_id)
    except Away as error:
        log.warning("MLflow is away (%s): a run of %s has no figures there", type(error).__name__, flow)
        return None
    return str(run.info.run_id)


def _show(flow: str, table: Sequence[Mapping[str, Any]]) -> None:
    rows = [{name: str(value) for name, value in row.items()} for row in table]
    try:
        create_table_artifact(key=flow, table=rows)
    except (httpx.HTTPError, PrefectException, OSError, RuntimeError) as error:
        log.warning("the table of a run of %s was not shown: %s", flow, type(error).__name__)
