"""A job's response names its runs where people reach Prefect and MLflow."""

from __future__ import annotations

from uuid import uuid4

import msgspec
from pydantic import SecretStr

from platform_api.jobs.job_views import detail
from storage.postgres.connection import Database
from storage.settings import MlflowSettings, PostgresSettings, PrefectSettings, Settings
from tests.storage.makers import a_job


def test_links_to_runs_are_those_of_the_pages_and_not_of_the_inner_addresses(module_database_url: str) -> None:
    settings = Settings(
        prefect=PrefectSettings(api_url="http://prefect:4200/api", ui_url="https://prefect.example.org"),
        mlflow=MlflowSettings(url="http://mlflow:5000", ui_url="https://mlflow.example.org"),
    )
    flow_run = uuid4()
    with Database(PostgresSettings(url=SecretStr(module_database_url))) as database:
        job = msgspec.structs.replace(a_job(database), tracking_run_id="abc", flow_run_id=flow_run)

    response = detail(job, None, None, settings)

    assert response.tracking_run_url == "https://mlflow.example.org/#/runs/abc"
    assert response.flow_run_url == f"https://prefect.example.org/runs/flow-run/{flow_run}"
