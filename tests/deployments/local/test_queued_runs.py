"""Flow runs that waited in Prefect over an upgrade begin with the parameters that flows take now."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Scheduled

from deployments.local import queued_runs
from deployments.local.queued_runs import rename_parameters


@pytest.fixture
def prefect(prefect_server: None) -> Iterator[SyncPrefectClient]:
    """A client of a real Prefect server."""
    with get_client(sync_client=True) as client:
        yield client


@flow(name="train-dreambooth")
def train_dreambooth(job_id: str, attempt: int) -> None:
    """Stands for a deployment's flow; no worker ever runs it here."""


def test_waiting_runs_get_the_new_names_and_ended_ones_stay(
    prefect: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_runs, "PAGE", 2)
    deployment = prefect.create_deployment(
        prefect.create_flow(train_dreambooth), "train", parameter_openapi_schema={"type": "object", "properties": {}}
    )
    old = {"job_id": str(uuid4()), "hand_out": 2}
    waiting = [
        prefect.create_flow_run_from_deployment(deployment, parameters=old, state=Scheduled(), name=f"run-{n}").id
        for n in range(5)
    ]
    ended = prefect.create_flow_run_from_deployment(deployment, parameters=old, state=Completed()).id
    other = prefect.create_flow_run_from_deployment(deployment, parameters={"day": "today"}, state=Scheduled()).id
    address = f"{PREFECT_API_URL.value()}/"
    with httpx.Client(base_url=address) as client:
        assert rename_parameters(client) == 5
        assert rename_parameters(client) == 0
    for run in waiting:
        found = prefect.read_flow_run(run)
        assert found.parameters == {"job_id": old["job_id"], "attempt": 2}
        assert found.name.startswith("run-")
        assert found.state is not None
        assert found.state.is_scheduled()
    assert prefect.read_flow_run(ended).parameters == old
    assert prefect.read_flow_run(other).parameters == {"day": "today"}
