"""Requests, responses and errors."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from deployments.client.api import ApiRefusal, ApiUnreachable, NoKey, open_api, raise_for_problem, read_key
from deployments.client.responses import Base, ProblemResponse
from storage.settings import ApiSettings, Settings, load_settings
from tests.deployments.client.cable import cable_to
from tests.deployments.line import Line


def test_a_response_is_a_typed_value(line: Line) -> None:
    with open_api(load_settings()) as api:
        base = api.get("/api/v1/base-models/starter", Base)

    assert base.class_words == ("mug", "cat")
    assert base.training.steps == 800


def test_patience_outlasts_connections_that_break_and_none_means_none(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cable_to(line.door.url, connections=0) as cable:
        monkeypatch.setenv("DARKROOM_API__PUBLIC_URL", cable.url)
        with open_api(load_settings()) as api:
            with pytest.raises(ApiUnreachable, match="Is the platform up"):
                api.get("/api/v1/base-models/starter", Base)
            cable.most_connections = None
            assert api.get("/api/v1/base-models/starter", Base, patience_seconds=10).name == "starter"


def test_a_server_that_is_not_ours_is_told_as_such(line: Line) -> None:
    with open_api(load_settings()) as api, pytest.raises(ApiUnreachable, match="not as Darkroom's API does"):
        api.get("/health", Base)


def test_a_refusal_tells_each_field_and_a_fault_the_request(line: Line) -> None:
    fields = ApiRefusal(
        422, ProblemResponse(errors={"steps": "expected a whole number >= 1", "name": "must not be blank"})
    )
    fault = ApiRefusal(500, ProblemResponse(detail="Something failed on our side.", request_id="5b7d"))

    assert str(fields) == "steps: expected a whole number >= 1\nname: must not be blank"
    assert str(fault) == "Something failed on our side. (request 5b7d)"


def test_an_error_page_that_is_not_ours_is_told_by_its_status() -> None:
    with pytest.raises(ApiRefusal, match="the API returned 502 Bad Gateway"):
        raise_for_problem(httpx.Response(502, text="<html>"))


def test_the_key_of_the_settings_goes_before_the_owners_file(tmp_path: Path) -> None:
    without = Settings(data_folder=tmp_path)
    with pytest.raises(NoKey, match=r"DARKROOM_API__KEY"):
        read_key(without)
    without.owner_key_file.write_text("drk_file_1\n")

    assert read_key(without) == "drk_file_1"
    assert read_key(Settings(data_folder=tmp_path, api=ApiSettings(key=SecretStr("drk_set_1")))) == "drk_set_1"
