from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import InvalidRequest
from storage.records.generation.scheduler_names import (
    a1111_names,
    comfy_names,
    display_name,
    display_names,
    find_scheduler,
)
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings

# `Scheduler` of @civitai/client 0.2.0-beta.86, in its order.
CIVITAI = {
    "eulerA": "euler_ancestral",
    "euler": "euler",
    "lms": "lms",
    "heun": "heun",
    "dpM2": "dpm2",
    "dpM2A": "dpm2_ancestral",
    "dpM2SA": "dpmpp_2s_ancestral",
    "dpM2M": "dpmpp_2m",
    "dpmsde": "dpmpp_sde",
    "dpmFast": "-",
    "dpmAdaptive": "-",
    "lmsKarras": "lms/karras",
    "dpM2Karras": "dpm2/karras",
    "dpM2AKarras": "dpm2_ancestral/karras",
    "dpM2SAKarras": "dpmpp_2s_ancestral/karras",
    "dpM2MKarras": "dpmpp_2m/karras",
    "dpmsdeKarras": "dpmpp_sde/karras",
    "ddim": "ddim",
    "plms": "pndm",
    "uniPC": "unipc",
    "undefined": "-",
    "lcm": "lcm",
    "ddpm": "ddpm",
    "deis": "deis",
    "dpM3MSDE": "dpmpp_3m_sde",
}
# The samplers that its site shows.
SITE = {
    "Euler a": "euler_ancestral",
    "Euler": "euler",
    "LMS": "lms",
    "Heun": "heun",
    "DPM2": "dpm2",
    "DPM2 a": "dpm2_ancestral",
    "DPM++ 2S a": "dpmpp_2s_ancestral",
    "DPM++ 2M": "dpmpp_2m",
    "DPM++ 2M SDE": "dpmpp_2m_sde",
    "DPM++ SDE": "dpmpp_sde",
    "DPM fast": "-",
    "DPM adaptive": "-",
    "LMS Karras": "lms/karras",
    "DPM2 Karras": "dpm2/karras",
    "DPM2 a Karras": "dpm2_ancestral/karras",
    "DPM++ 2S a Karras": "dpmpp_2s_ancestral/karras",
    "DPM++ 2M Karras": "dpmpp_2m/karras",
    "DPM++ 2M SDE Karras": "dpmpp_2m_sde/karras",
    "DPM++ SDE Karras": "dpmpp_sde/karras",
    "DPM++ 3M SDE": "dpmpp_3m_sde",
    "DPM++ 3M SDE Karras": "dpmpp_3m_sde/karras",
    "DPM++ 3M SDE Exponential": "dpmpp_3m_sde/exponential",
    "DDIM": "ddim",
    "PLMS": "pndm",
    "UniPC": "unipc",
    "LCM": "lcm",
}
OTHERS = {
    "DPM++ 2M SDE Exponential": "dpmpp_2m_sde/exponential",
    "DPM++ 2M SDE Heun Karras": "dpmpp_2m_sde_heun/karras",
    "DDIMScheduler": "ddim",
    "PNDM": "pndm",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "dpmsolvermultistep": "dpmpp_2m",
    "DPMSolverSDEScheduler": "dpmpp_sde",
    "KDPM2DiscreteScheduler": "dpm2",
    "dpm++2s_a": "dpmpp_2s_ancestral",
    "ddim_trailing": "ddim/trailing",
    "Euler SGM Uniform": "euler/trailing",
    "  dpm++ 2m   KARRAS ": "dpmpp_2m/karras",
}


def meant(name: str, spacing: str = "") -> str:
    """What is found, as `name/spacing`, or `-` for what is refused."""
    try:
        found = find_scheduler(name, spacing)
    except InvalidRequest:
        return "-"
    return found.name if found.spacing == "normal" else f"{found.name}/{found.spacing}"


def test_civitais_names_are_found():
    assert {name: meant(name) for name in CIVITAI} == CIVITAI
    assert {name: meant(name) for name in SITE} == SITE
    assert len(SITE) == 26


def test_other_names_are_found_in_any_case():
    assert {name: meant(name) for name in OTHERS} == OTHERS
    assert {name: meant(name.upper()) for name in OTHERS} == OTHERS


@pytest.mark.parametrize(
    ("name", "spacing", "expected"),
    [
        ("DPM++ 2M", "Karras", "dpmpp_2m/karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m/karras"),
        ("DPM++ 2M SDE", "Automatic", "dpmpp_2m_sde/exponential"),
        ("DPM++ 2M Karras", "Automatic", "dpmpp_2m/karras"),
        ("DPM++ 2M Karras", "karras", "dpmpp_2m/karras"),
        ("Euler a", "Automatic", "euler_ancestral"),
        ("Euler a", "Uniform", "euler_ancestral"),
        ("euler", "simple", "euler/trailing"),
        ("euler", "sgm_uniform", "euler/trailing"),
        ("dpmpp_2m", "sgm_uniform", "dpmpp_2m"),
        ("dpmpp_2m_sde_gpu", "exponential", "dpmpp_2m_sde/exponential"),
        ("uni_pc", "normal", "unipc"),
        ("ddim", "ddim_uniform", "ddim"),
        ("lcm", "sgm_uniform", "lcm"),
        ("euler", "ddim_uniform", "-"),
        ("euler", "kl_optimal", "-"),
        ("euler", "x" * 1000, "-"),
        ("ddim", "karras", "-"),
        ("DPM++ 2M Karras", "normal", "-"),
        ("DPM++ 2M Karras", "Exponential", "-"),
    ],
)
def test_a_spacing_beside_the_name_is_taken_or_refused(name: str, spacing: str, expected: str):
    assert meant(name, spacing) == expected


def test_a_spacing_that_contradicts_the_name_is_refused_by_its_field():
    with pytest.raises(InvalidRequest, match="'LMS Karras' asks for karras, and 'beta' beside it for beta") as refused:
        find_scheduler("LMS Karras", "beta")
    assert list(refused.value.fields) == ["spacing"]


def test_an_unknown_name_is_refused_with_the_nearest_and_where_all_are():
    with pytest.raises(InvalidRequest) as refused:
        find_scheduler("DPM++ 2M Karass")
    assert refused.value.fields["scheduler"] == (
        "'DPM++ 2M Karass' is unknown. Nearest: DPM++ 2M Karras, DPM++ 3M Karras, DPM++ 2S Karras. "
        "All are in docs/reference/schedulers.md."
    )


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("DPM adaptive", "it chooses its steps by the error of a whole batch, not of a picture. Nearest: DPM++ 2S."),
        ("Restart Karras", "diffusers has none. Nearest: Heun Karras."),
        ("FlowMatchEulerDiscreteScheduler", "it is for models that predict a flow. All are in"),
        ("DDIMParallel", "its step is that of DDIM"),
        ("undefined", "leave the scheduler out"),
    ],
)
def test_what_others_draw_with_is_refused_with_the_reason(name: str, reason: str):
    with pytest.raises(InvalidRequest) as refused:
        find_scheduler(name)
    assert reason in refused.value.fields["scheduler"]


@given(st.text(max_size=200))
def test_any_text_is_found_or_refused_by_its_field(text: str):
    refused: dict[str, str] = {}
    try:
        assert find_scheduler(text).name in SCHEDULERS
    except InvalidRequest as unknown:
        refused = unknown.fields
    assert set(refused) <= {"scheduler"}
    assert all(len(reason) < 400 for reason in refused.values())


def test_every_name_leads_back_to_its_settings():
    names = [*display_names(), *CIVITAI, *SITE, *OTHERS]
    found = [find_scheduler(name) for name in names if meant(name) != "-"]
    assert {find_scheduler(display_name(settings)) == settings for settings in found} == {True}
    assert {find_scheduler(*a1111_names(settings)) == settings for settings in found} == {True}
    comfy = [(settings, comfy_names(settings)) for settings in found]
    assert {find_scheduler(*names) == settings for settings, names in comfy if names} == {True}


def test_a_title_alone_is_the_name_that_a1111_writes():
    assert display_name(SchedulerSettings(name="dpmpp_2m", spacing="karras")) == "DPM++ 2M Karras"
    assert display_name(SchedulerSettings(eta=0.5)) == "DDIM"
    assert a1111_names(SchedulerSettings(name="dpmpp_2m", spacing="karras")) == ("DPM++ 2M", "Karras")
    # A1111 would read "Automatic" as Karras.
    assert a1111_names(SchedulerSettings(name="dpmpp_2m")) == ("DPM++ 2M", "Uniform")
    assert a1111_names(SchedulerSettings()) == ("DDIM", "Automatic")


def test_comfyui_has_what_is_the_same_there_and_no_more():
    assert comfy_names(SchedulerSettings()) == ("ddim", "ddim_uniform")
    assert comfy_names(SchedulerSettings(name="euler_ancestral", spacing="karras")) == ("euler_ancestral", "karras")
    assert comfy_names(SchedulerSettings(name="dpmpp_2m")) == ("dpmpp_2m", "sgm_uniform")
    for other in (
        SchedulerSettings(eta=0.5),
        SchedulerSettings(name="pndm"),
        SchedulerSettings(name="unipc"),
        SchedulerSettings(name="euler", spacing="beta"),
    ):
        assert comfy_names(other) is None


def test_names_of_settings_that_nothing_takes_are_refused():
    for name in (display_name, a1111_names, comfy_names):
        with pytest.raises(InvalidRequest, match="spacing"):
            name(SchedulerSettings(spacing="karras"))


def test_an_eta_is_the_schedulers_own_unless_asked_for():
    assert find_scheduler("TCD").eta == 0.3
    assert find_scheduler("TCD", eta=0.0).eta == 0.0
    assert find_scheduler("ddim", eta=1.0) == SchedulerSettings(eta=1.0)
    with pytest.raises(InvalidRequest, match="eta: Euler takes none"):
        find_scheduler("euler", eta=0.5)
