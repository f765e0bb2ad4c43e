"""Flow runs that waited in Prefect while Darkroom was upgraded: their parameters have the names that flows take now."""

from __future__ import annotations

import logging
from typing import Any

import httpx

log = logging.getLogger("darkroom.deploy")

RENAMED = {"hand_out": "attempt"}
"""Parameters of flows that have another name now, by the name of before."""
PAGE = 200
_WAITING = ["SCHEDULED", "PENDING", "PAUSED"]


def rename_parameters(client: httpx.Client) -> int:
    """Give the parameters of runs that have not begun the names of now; returns how many runs had old ones.

    Prefect checks nothing until a worker starts a run, which would fail for a parameter that its flow does not take.
    Repeatable. Raises httpx.HTTPError.
    """
    renamed = offset = 0
    while runs := _page(client, offset):
        for run in runs:
            parameters: dict[str, Any] = run["parameters"]
            if RENAMED.keys() & parameters.keys():
                now = {RENAMED.get(name, name): value for name, value in parameters.items()}
                client.patch(f"flow_runs/{run['id']}", json={"parameters": now}).raise_for_status()
                renamed += 1
        # Over all of them: a run that was renamed still matches the filter, so nothing moves up.
        offset += len(runs)
    if renamed:
        log.info("%d waiting flow runs have their parameters' names of now", renamed)
    return renamed


def _page(client: httpx.Client, offset: int) -> list[dict[str, Any]]:
    body = {
        "flow_runs": {"state": {"type": {"any_": _WAITING}}, "deployment_id": {"is_null_": False}},
        "sort": "ID_DESC",
        "limit": PAGE,
        "offset": offset,
    }
    return client.post("flow_runs/filter", json=body).raise_for_status().json()
