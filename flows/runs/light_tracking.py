"""Tracking runs of light flows, written over MLflow's REST interface: importing its client costs a drain more than its
work does, and the light pool's warm process holds none.

A tracking run is found by its name, so that a flow may add to it: a rebuild has one of its own, the drains of a day
share one. Metrics are a chart to look at, not a fact: while MLflow is unavailable they are left out, and the flow goes
on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import httpx

from storage.settings import Settings

log = logging.getLogger("darkroom.tracking")

TIMEOUT_SECONDS = 5.0
RUNNING, FINISHED, FAILED, KILLED = "RUNNING", "FINISHED", "FAILED", "KILLED"
FLOW_TAG = "darkroom.flow"
"""The flow that a run was made by: retention deletes runs with it, and nobody else's."""
UNTAGGED_EXPERIMENTS = frozenset(
    {
        "apply-retention",
        "back-up",
        "deliver-notifications",
        "fan-out-notifications",
        "rank-leaderboards",
        "rebuild-search-index",
        "roll-up-metrics",
        "sync-search-index",
    }
)
"""Where the runs of flows stand that were made before they were tagged."""


def note(
    settings: Settings,
    experiment: str,
    name: str,
    metrics: Mapping[str, float],
    *,
    step: int = 0,
    params: Mapping[str, object] | None = None,
    status: str = FINISHED,
) -> bool:
    """Add metrics to the tracking run of this name, made when it is new; returns whether MLflow has them.

    step: where the metrics stand in their charts. status: RUNNING, FINISHED, FAILED or KILLED from now on.
    """
    now = int(time.time() * 1000)
    points = [{"key": key, "value": float(value), "timestamp": now, "step": step} for key, value in metrics.items()]
    texts = [{"key": key, "value": str(value)[:500]} for key, value in (params or {}).items()]
    try:
        with _rest_client(settings) as client:
            run_id = _run_of_name(client, experiment, name, now)
            _post(client, "runs/log-batch", {"run_id": run_id, "metrics": points, "params": texts})
            ended = {} if status == RUNNING else {"end_time": now}
            # Also for a run that is FINISHED: the drains of a day share one, and each moves its end.
            _post(client, "runs/update", {"run_id": run_id, "status": status, **ended})
    # ValueError and KeyError: a response that is not MLflow's, of a proxy for one.
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        log.warning("MLflow did not take the metrics of %s (%s); the flow goes on", name, type(error).__name__)
        return False
    return True


def _rest_client(settings: Settings) -> httpx.Client:
    """The light one of two clients; the other is `flows.jobs.tracking.tracking_client`, which is MLflow's own. Address
    and sign-in of both are those of the settings."""
    return httpx.Client(base_url=settings.mlflow.rest_url, timeout=TIMEOUT_SECONDS, auth=settings.mlflow.credentials)


def _experiment_id(client: httpx.Client, name: str) -> str:
    found = client.get("experiments/get-by-name", params={"experiment_name": name})
    if found.status_code == 404:
        made = client.post("experiments/create", json={"name": name})
        if made.is_success:
            return str(made.json()["experiment_id"])
        # Somebody else has made it in between.
        found = client.get("experiments/get-by-name", params={"experiment_name": name})
    return str(found.raise_for_status().json()["experiment"]["experiment_id"])


def _run_of_name(client: httpx.Client, experiment: str, name: str, now: int) -> str:
    experiment_id = _experiment_id(client, experiment)
    asked = {"experiment_ids": [experiment_id], "filter": f"attributes.run_name = '{name}'", "max_results": 1}
    runs = _post(client, "runs/search", asked).get("runs")
    if runs:
        return str(runs[0]["info"]["run_id"])
    tags = [{"key": FLOW_TAG, "value": experiment}]
    fields = {"experiment_id": experiment_id, "run_name": name, "start_time": now, "tags": tags}
    return str(_post(client, "runs/create", fields)["run"]["info"]["run_id"])


def _post(client: httpx.Client, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    return dict(client.post(path, json=body).raise_for_status().json())
