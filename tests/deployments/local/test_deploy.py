"""prefect.yaml, read strictly: `prefect deploy` ignores misspelled keys, unset variables and duplicates."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule

from deployments.local.deploy import TAG, WORK_POOLS
from deployments.local.environment import PROJECT
from deployments.local.fingerprint import PREFECT_FILE

TOP = {"name", "prefect-version", "definitions", "pull", "deployments"}
STANZA = {
    *("name", "entrypoint", "description", "tags", "pull", "work_pool", "schedules"),
    *("parameters", "enforce_parameter_schema", "version", "paused"),
}
POOL = {"name", "work_queue_name"}
SCHEDULE = {"slug", "cron", "interval", "rrule", "timezone", "anchor_date", "active", "parameters"}


def document() -> dict[str, Any]:
    return yaml.safe_load(PREFECT_FILE.read_text())


STANZAS: list[dict[str, Any]] = document()["deployments"]
each_stanza = pytest.mark.parametrize("stanza", STANZAS, ids=lambda stanza: stanza["name"])


def declared_flows() -> Iterator[str]:
    """The dotted name of every function under flows/ with a @flow decorator, found without importing it."""
    for file in sorted((PROJECT / "flows").rglob("*.py")):
        module = ".".join(file.relative_to(PROJECT).with_suffix("").parts)
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                for decorator in node.decorator_list:
                    called = decorator.func if isinstance(decorator, ast.Call) else decorator
                    if isinstance(called, ast.Name) and called.id == "flow":
                        yield f"{module}.{node.name}"


def test_the_file_has_known_keys_only() -> None:
    assert set(document()) <= TOP
    for stanza in STANZAS:
        assert set(stanza) <= STANZA, stanza["name"]
        assert set(stanza["work_pool"]) <= POOL, stanza["name"]
        for schedule in stanza.get("schedules", []):
            assert set(schedule) <= SCHEDULE, stanza["name"]


def test_names_are_unique() -> None:
    names = [stanza["name"] for stanza in STANZAS]
    assert len(names) == len(set(names))


def test_every_flow_has_a_deployment_and_every_deployment_a_flow() -> None:
    assert {stanza["entrypoint"] for stanza in STANZAS} == set(declared_flows())


def test_no_template_is_left_to_be_filled() -> None:
    assert re.findall(r"\{\{.*?\}\}", PREFECT_FILE.read_text()) == []


def test_the_prefect_version_is_the_pinned_one() -> None:
    pins = (Path(PROJECT) / "pyproject.toml").read_text()
    assert f'"prefect=={document()["prefect-version"]}"' in pins


@each_stanza
def test_a_deployment_says_what_it_does_and_where_it_runs(stanza: dict[str, Any]) -> None:
    assert len(stanza["description"]) >= 20
    assert TAG in stanza["tags"]
    assert stanza["work_pool"]["name"] in WORK_POOLS
    assert stanza["pull"] == []


@each_stanza
def test_an_entry_point_is_a_flow_named_like_its_function_and_its_deployment(stanza: dict[str, Any]) -> None:
    module, function = stanza["entrypoint"].rsplit(".", 1)

    found = getattr(importlib.import_module(module), function)

    assert isinstance(found, Flow)
    assert found.name == stanza["name"] == function.replace("_", "-")
    assert found.description
    assert set(stanza.get("parameters", {})) <= set(found.parameters.properties)


@each_stanza
def test_a_schedule_has_a_slug_and_can_be_read(stanza: dict[str, Any]) -> None:
    schedules = stanza.get("schedules", [])
    assert len({schedule["slug"] for schedule in schedules}) == len(schedules)
    for schedule in schedules:
        if "cron" in schedule:
            CronSchedule(cron=schedule["cron"], timezone=schedule.get("timezone"))
