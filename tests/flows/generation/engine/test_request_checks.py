"""What the engine's door takes, by field."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flows.generation.engine.messages import DrawRequest
from flows.generation.engine.request_checks import MAX_FILES, checked
from storage.errors import InvalidRequest
from storage.records.generation.drawings import NO_MODEL, Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.schedulers import SchedulerSettings
from tests.flows.generation.engine.bench import drawing

HASH, OTHER = "a" * 64, "b" * 64
EDIT: dict[str, Any] = {"operation": Operation.IMG2IMG, "source": HASH}
INPAINT: dict[str, Any] = {"operation": Operation.INPAINT, "source": HASH, "mask": OTHER}
UPSCALE: dict[str, Any] = {"operation": Operation.UPSCALE, "source": HASH, "model": NO_MODEL}


def asked(whole: Drawing, *wanted: int) -> DrawRequest:
    return DrawRequest(drawing=whole, wanted=wanted or tuple(range(len(whole.images))))


def with_files(**files: str) -> dict[str, Any]:
    return {"model": DrawnModel(version_id=1, family="sd1", files=files)}


def with_path(path: str) -> dict[str, Any]:
    return {"model": DrawnModel(version_id=1, family="sd1", files={path: HASH})}


def with_adapters(*adapters: tuple[str, float]) -> dict[str, Any]:
    found = (DrawnAdapter(version_id=1, sha256=sha256, strength=strength) for sha256, strength in adapters)
    return {"adapters": tuple(found)}


def prompts(*texts: str) -> dict[str, Any]:
    return {"images": tuple(DrawnImage(prompt=text, seed=1) for text in texts)}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"width": 4096, "height": 72, "shape": 8},
        {"shape": 1, "steps": 999, "guidance_scale": 100.0, "guidance_rescale": 1.0},
        {"guidance_scale": 0.0},
        {**EDIT, "steps": 10, "strength": 0.1},
        {**INPAINT, "strength": 1.0},
        {**UPSCALE, "width": 8192, "height": 8192},
        {**UPSCALE, "scheduler": SchedulerSettings(name="none")},
        with_adapters((HASH, -4.0), (OTHER, 0.0)),
        with_path("unet/.config..json"),
        prompts(*["x" * 10_000] * 64),
    ],
)
def test_what_can_be_drawn_is_taken_as_it_is(changes: dict[str, Any]) -> None:
    request = asked(drawing(1, **changes))

    assert checked(request) is request


def test_nothing_wanted_is_no_fault() -> None:
    request = DrawRequest(drawing=drawing(1), wanted=())

    assert checked(request) is request


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({"width": 0, "height": -64}, ["width", "height"]),
        ({"width": 65}, ["width"]),
        ({"width": 4104}, ["width"]),
        ({**UPSCALE, "width": 8200}, ["width"]),
        ({"shape": 3}, ["shape"]),
        ({"shape": -1}, ["shape"]),
        ({"steps": 0}, ["steps"]),
        ({"steps": 1000}, ["steps"]),
        ({"guidance_scale": float("nan")}, ["guidanceScale"]),
        ({"guidance_scale": -1.0}, ["guidanceScale"]),
        ({"guidance_scale": float("inf")}, ["guidanceScale"]),
        ({"guidance_rescale": 1.5}, ["guidanceRescale"]),
        ({**EDIT, "strength": 0.0}, ["strength"]),
        ({**EDIT, "strength": 2.0}, ["strength"]),
        ({**EDIT, "strength": float("nan")}, ["strength"]),
        ({**EDIT, "steps": 3, "strength": 0.1}, ["strength"]),
        ({"scheduler": SchedulerSettings(name="none")}, ["scheduler"]),
        ({"scheduler": SchedulerSettings(eta=float("nan"))}, ["eta"]),
        ({"scheduler": SchedulerSettings(spacing="none")}, ["spacing"]),
        (prompts("x", "x" * 10_001), ["prompt"]),
        ({"negative_prompt": "x" * 10_001}, ["negativePrompt"]),
        (prompts(), ["images"]),
        (prompts(*["x"] * 65), ["images"]),
        ({"source": HASH, "mask": HASH}, ["source", "mask"]),
        ({**EDIT, "source": ""}, ["source"]),
        ({**EDIT, "source": "A" * 64}, ["source"]),
        ({**EDIT, "source": f"{HASH}\n"}, ["source"]),
        ({**EDIT, "mask": OTHER}, ["mask"]),
        ({**INPAINT, "mask": ""}, ["mask"]),
        ({**UPSCALE, "source": "../../secret"}, ["source"]),
        (with_adapters(("../a", 1.0), (OTHER, float("nan"))), ["adapters[0].sha256", "adapters[1].strength"]),
        (with_adapters((HASH, 0.5), (HASH, 0.5)), ["adapters[1].sha256"]),
        (with_adapters(*((f"{number:064d}", 1.0) for number in range(17))), ["adapters"]),
        ({"model": NO_MODEL}, ["model"]),
        (with_files(**{f"f{number}": HASH for number in range(MAX_FILES + 1)}), ["model"]),
        (with_files(unet="f" * 63), ["model.files"]),
        (with_path("../unet.safetensors"), ["model.files"]),
        (with_path("/etc/passwd"), ["model.files"]),
        (with_path("unet/../../x"), ["model.files"]),
        (with_path("unet//x"), ["model.files"]),
        (with_path("a\0b"), ["model.files"]),
        (with_path(""), ["model.files"]),
        (with_path("x" * 1_001), ["model.files"]),
        ({"width": 7, "steps": 0, "mask": HASH}, ["width", "steps", "mask"]),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_field(changes: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked(asked(drawing(1, **changes)))

    assert list(refusal.value.fields) == fields


@pytest.mark.parametrize("wanted", [(0, 1, 2), (-1,), (1, 1)])
def test_wanted_pictures_are_those_of_the_drawing_each_once(wanted: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        checked(asked(drawing(1, 2), *wanted))

    assert list(refusal.value.fields) == ["wanted"]


def test_a_refusal_shows_no_more_than_the_beginning_of_a_value() -> None:
    whole = msgspec.structs.replace(drawing(1), source="x" * 100_000, operation=Operation.IMG2IMG)

    with pytest.raises(InvalidRequest) as refusal:
        checked(asked(whole))

    assert len(str(refusal.value)) < 200
