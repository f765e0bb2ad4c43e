"""MLflow's server behind a proxy: its own pages may change something, at the address where people reach them."""

from __future__ import annotations

import httpx
import pytest

from storage.settings import MlflowSettings
from tests.flows.conftest import MLFLOW_PAGES, mlflow_settings

__all__ = ["mlflow_settings"]

HOST = MLFLOW_PAGES.removeprefix("https://")
CHANGES = [
    ("POST", "/ajax-api/2.0/mlflow/experiments/search", {"max_results": 1}),
    ("POST", "/api/2.0/mlflow/experiments/search", {"max_results": 1}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
def test_a_page_of_the_public_address_may_change_something(
    mlflow_settings: MlflowSettings, method: str, path: str, body: object
) -> None:
    with httpx.Client(base_url=mlflow_settings.url, auth=mlflow_settings.credentials, timeout=30) as client:
        response = client.request(method, path, json=body, headers={"Host": HOST, "Origin": MLFLOW_PAGES})

        assert response.status_code == 200, response.text


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        (HOST, "https://evil.example.org"),
        (HOST, f"http://{HOST}"),
        (HOST, f"https://{HOST}:8443"),
        ("evil.example.org", "https://evil.example.org"),
        (f"{HOST}.evil.example.org", MLFLOW_PAGES),
    ],
)
def test_no_other_page_may_and_no_other_name_is_accepted(
    mlflow_settings: MlflowSettings, host: str, origin: str
) -> None:
    with httpx.Client(base_url=mlflow_settings.url, auth=mlflow_settings.credentials, timeout=30) as client:
        for method, path, body in CHANGES:
            response = client.request(method, path, json=body, headers={"Host": host, "Origin": origin})

            assert response.status_code == 403, (path, response.text)
            assert "access-control-allow-origin" not in response.headers
