"""Variables of our prefix that are no setting are refused, and the message names the right one."""

from __future__ import annotations

import pytest

from deployments.local.environment import DATA_FOLDER_MARK, PART_MARK
from storage.errors import InvalidSettings
from storage.setting_names import MARKS, RENAMED, SERVICE_LINK, unknown_names
from storage.settings import load_settings, variables


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("DARKROOM_JOBS__MAX_SILENT_HAND_OUTS", "is called DARKROOM_JOBS__MAX_SILENT_ATTEMPTS now"),
        ("DARKROOM_API__PROT", "did you mean DARKROOM_API__PORT?"),
        ("darkroom_api__prot", "did you mean DARKROOM_API__PORT?"),
        ("DARKROOM_QQ", "is no setting"),
    ],
)
def test_an_unknown_name_is_refused_and_the_right_one_named(
    monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    monkeypatch.setenv(name, "secret-value")
    with pytest.raises(InvalidSettings, match=name.upper()) as refused:
        load_settings()
    assert advice in str(refused.value)
    assert "secret-value" not in str(refused.value)


@pytest.mark.parametrize("service", ["DARKROOM", "DARKROOM_API", "DARKROOM_POSTGRES_RW"])
def test_service_links_of_kubernetes_are_distinguished_from_misspelt_settings(service: str) -> None:
    port = "PORT_8000_TCP"
    ends = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", port, f"{port}_PROTO", f"{port}_PORT")
    links = {f"{service}_{end}": SERVICE_LINK for end in (*ends, f"{port}_ADDR")}
    found = unknown_names([*links, "DARKROOM_API__PROT"], variables())
    assert found.pop("DARKROOM_API__PROT") == "is no setting (did you mean DARKROOM_API__PORT?)"
    assert found == links
    assert "did you mean DARKROOM_API__PORT?" in unknown_names(["DARKROOM_API_PORT"], variables())["DARKROOM_API_PORT"]


def test_every_setting_a_whole_group_and_the_marks_of_a_platform_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unknown_names([*variables(), *MARKS, "PATH", "DARKROOMS"], variables()) == {}
    monkeypatch.setenv("DARKROOM_API", '{"port": 8123}')
    assert load_settings().api.port == 8123


def test_what_is_renamed_leads_to_a_setting_and_is_none_itself() -> None:
    assert set(RENAMED.values()) <= variables()
    assert not RENAMED.keys() & variables()


def test_the_marks_are_those_of_the_platform() -> None:
    assert {DATA_FOLDER_MARK, PART_MARK} == MARKS
