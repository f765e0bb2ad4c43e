"""compose.yaml: the same platform on real servers. Read, not run: no container engine is needed for these."""

from __future__ import annotations

import importlib.util
import re
from typing import Any

import pytest
import yaml

from deployments.local.deploy import WORK_POOLS
from deployments.local.environment import NO_TELEMETRY, PROJECT, prefect_retention_environment
from deployments.local.parts import is_embedded
from storage.settings import Settings

COMPOSE = PROJECT / "deployments" / "compose.yaml"
DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = ("api", "relay", "worker-training", "worker-light", "prepare")


def filled(value: str) -> str:
    """A value with every ${NAME:?} replaced, as compose does it."""
    return re.sub(r"\$\{(\w+):\?\}", r"https://\1", value)


def test_every_part_of_the_embedded_platform_has_its_service() -> None:
    embedded = {"postgres", "valkey", "prefect", "mlflow", "relay", "api", *(f"worker-{pool}" for pool in WORK_POOLS)}

    assert embedded | {"objects", "elasticsearch", "prepare"} == set(SERVICES)


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_knows_every_store_and_misspells_no_setting(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = SERVICES[service]["environment"]
    known = set(settings_names(Settings()))
    ours = {name: filled(value) for name, value in environment.items() if name.startswith("DARKROOM_")}
    assert set(ours) <= known
    for name, value in ours.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    for store in ("postgres", "redis", "prefect", "mlflow"):
        assert not is_embedded(settings, store), store
    assert settings.blobs.url.startswith("s3://")
    assert environment["PREFECT_API_URL"] == settings.prefect.api_url


def settings_names(settings: Settings) -> list[str]:
    """Every variable that the settings read."""
    names: list[str] = []
    for group, value in settings:
        fields = getattr(type(value), "model_fields", None)
        names += [f"DARKROOM_{group}__{field}".upper() for field in fields] if fields else [f"DARKROOM_{group}".upper()]
    return names


def test_no_secret_has_a_value_and_no_image_floats() -> None:
    text = COMPOSE.read_text()

    for name in ("POSTGRES_PASSWORD", "SIGNING_KEY", "SEALING_KEY", "S3_SECRET_KEY"):
        assert f"${{{name}:?}}" in text
    for name, service in SERVICES.items():
        assert re.search(r":\d[\w.-]*$", service["image"]), name
    example = (PROJECT / "deployments" / "compose.env.example").read_text()
    assert set(re.findall(r"\$\{(\w+):\?\}", text)) == set(re.findall(r"^(\w+)=", example, re.MULTILINE))


def test_prefect_deletes_its_old_rows_as_on_one_machine() -> None:
    ours = prefect_retention_environment(Settings())
    assert {name: SERVICES["prefect"]["environment"].get(name) for name in ours} == ours


def test_ports_are_published_on_the_loopback_only() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_training_worker_takes_one_job_at_a_time_on_a_gpu() -> None:
    worker = SERVICES["worker-training"]

    assert "--limit=1" in worker["command"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_modules_that_services_run_exist_and_the_image_sends_no_telemetry() -> None:
    modules = [
        command[command.index("-m") + 1]
        for service in SERVICES.values()
        if "-m" in (command := service.get("command", []))
    ]
    image = (PROJECT / "deployments" / "Dockerfile").read_text()
    prefect = SERVICES["prefect"]["environment"]

    assert all(importlib.util.find_spec(module) for module in modules)
    for name, value in NO_TELEMETRY.items():
        assert f"{name}={value}" in image or prefect.get(name) == value, name
