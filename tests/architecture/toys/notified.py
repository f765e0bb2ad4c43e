"""Runs in a tree that has the channel `toy`, and the other toys: all that follows from their lines, and the channel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prefect.utilities.callables import parameter_schema
from typer.testing import CliRunner

from deployments.cli import app
from deployments.reference_tables import api_document, choices, commands
from flows.notifications.channels.lookup import senders
from flows.notifications.deliver import deliver
from flows.notifications.fan_out import fan_out
from flows.training.request import request_training
from storage.postgres.accounts import accounts
from storage.postgres.connection import Query
from storage.postgres.notifications import notifications
from storage.records.notifications.notifications import SystemNotice
from storage.stores import open_stores
from tests.platform_api.door import Door

AT = "/api/v1/notifications"


def test_a_notification_reaches_the_toy(door: Door, tmp_path: Path) -> None:
    client, file = door.client(), tmp_path / "told"
    refused = client.put(f"{AT}/channels/toy", json={"address": "nowhere"})
    assert (refused.status_code, refused.json()["errors"]) == (422, {"address": "must be like this: file:/tmp/told"})
    made = client.put(f"{AT}/channels/toy", json={"address": f"file:{file}"}).json()
    assert (made["channel"], made["state"], made["address"]) == ("toy", "active", "fil…")
    assert client.post(f"{AT}/channels/toy/test").status_code == 202
    wishes = {(one["type"], one["channel"]): one for one in client.get(f"{AT}/preferences").json()["preferences"]}
    assert wishes["system", "toy"]["frequency"] == "now"
    reader = door.database.run(accounts.ensure_account("owner")).number
    door.database.run(notifications.add("key", SystemNotice(title="Maintenance", text="On Sunday."), [reader]))
    with open_stores(door.settings) as stores:
        fan_out(stores)
        deliver(stores, senders(stores.settings))
    assert [json.loads(line) for line in sorted(file.read_text().splitlines())] == [
        {"purpose": "notify", "titles": ["Maintenance"]},
        {"purpose": "test", "titles": []},
    ]
    named = Query("select name, signed from address_channels where name = 'toy'", {}, list)
    assert door.database.run(named) == [{"name": "toy", "signed": False}]
    assert client.delete(f"{AT}/channels/toy").status_code == 204


@pytest.mark.parametrize(
    "schema", ["Channel", "OutwardChannel", "TrainingMethod", "TrainingOptimizer", "GenerationBackend"]
)
def test_the_description_of_the_api_names_the_toy(schema: str) -> None:
    document: dict[str, Any] = api_document()
    assert document["components"]["schemas"][schema]["enum"][-1] == "toy"
    assert {"put", "delete"} <= set(document["paths"][f"{AT}/channels/toy"])


@pytest.mark.parametrize("command", ["train", "generate", "notifications pause"])
def test_the_command_line_offers_the_toy(command: str) -> None:
    # Wide enough that no choice is cut.
    help_text = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).output
    assert "toy" in help_text


def test_the_pages_name_the_toys() -> None:
    assert choices().count("| `toy` | A toy. |") == 6
    assert commands().count("toy") >= 5


def test_the_form_in_prefect_offers_the_toys() -> None:
    definitions = parameter_schema(request_training.fn).definitions or {}
    assert [definitions[name]["enum"][-1] for name in ("TrainingMethod", "TrainingOptimizer")] == ["toy", "toy"]
