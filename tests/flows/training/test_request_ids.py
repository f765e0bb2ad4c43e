"""The id of an API request is found in everything that is done for it: job, flow run, logs, tracking run."""

from __future__ import annotations

import io
import json
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient

from deployments.base_models.registration import add_base_model
from flows.jobs.tracking import EXPERIMENT, JOB_TAG, tracking_client
from flows.jobs.tracking_facts import REQUEST_TAG
from flows.relay.effects import Effects
from flows.runs.flow_names import JOB_FLOWS
from flows.runs.orchestrator import Orchestrator
from flows.training.dreambooth import train_dreambooth
from storage.postgres.accounts import accounts
from storage.postgres.jobs import data_sets, jobs
from storage.records.accounts.accounts import Scope, make_key
from storage.records.jobs.jobs import JobKind, JobState
from storage.settings import Settings
from storage.stores import Stores
from tests.flows.training.test_dreambooth import environment, photos, settings
from tests.json_logs import json_log
from tests.platform_api.door import listening

__all__ = ["environment", "json_log", "settings"]
ID = "the-id-of-this-test"


@pytest.mark.usefixtures("environment")
def test_one_id_goes_from_the_response_to_the_tracking_run(
    stores: Stores, settings: Settings, tiny_model: Path, prefect: SyncPrefectClient, json_log: io.StringIO
) -> None:
    prefect.create_deployment(
        flow_id=prefect.create_flow(train_dreambooth),
        name=JOB_FLOWS[JobKind.TRAINING],
        parameter_openapi_schema={"type": "object", "properties": {}},
    )
    account, key = stores.database.run(accounts.ensure_account("owner")).id, make_key()
    stores.database.run(accounts.add_key(account, key, "test", list(Scope)))
    add_base_model(stores, tiny_model, "tiny")
    data_set = photos(stores, account)
    for image in stores.database.run(data_sets.images(data_set)):
        stores.blobs.delete(image.sha256)  # the flow ends where it reads them, when its tracking run is there
    with listening(settings) as url:
        response = httpx.post(
            f"{url}/api/v1/training-jobs",
            headers={"Authorization": f"Bearer {key.text}", "X-Request-Id": ID},
            json={"dataSetId": str(data_set), "classWord": "mug", "baseModel": "tiny"},
        )
    assert (response.status_code, response.headers["x-request-id"]) == (202, ID)

    [job] = stores.database.run(jobs.alive())
    assert job.request_id == ID
    Effects(stores, Orchestrator(prefect)).drain()
    flow_run_id = stores.database.run(jobs.get(job.id)).flow_run_id
    assert flow_run_id is not None
    assert f"request:{ID}" in prefect.read_flow_run(flow_run_id).tags
    assert train_dreambooth(job.id, job.attempt, return_state=True).is_failed()
    assert stores.database.run(jobs.get(job.id)).state is JobState.FAILED

    client = tracking_client(settings)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id], f"tags.`{JOB_TAG}` = '{job.id}'")
    assert run.data.tags[REQUEST_TAG] == ID
    lines = [json.loads(line) for line in json_log.getvalue().splitlines()]
    belonging = {line["logger"] for line in lines if line.get("request_id") == ID}
    assert belonging >= {"darkroom.api", "darkroom.relay", "darkroom.lifecycle"}
