"""Settings as values, and models and adapters put together from the settings that each name a part of them."""

from __future__ import annotations

from typing import Any

import pytest

from storage.records.generation.parameter_values import DrawnFacts, DrawnResource, facts_of


def facts(**settings: Any) -> DrawnFacts:
    """The facts of settings, by their keys with underscores for blanks."""
    return facts_of({key.replace("_", " "): value for key, value in settings.items()}, prompt="", negative_prompt="")


def test_a_hash_belongs_to_the_adapter_of_its_name() -> None:
    found = facts(
        Civitai_resources=[
            {"type": "LORA", "modelName": "ink: fine", "weight": 1},
            {"type": "embed", "modelVersionId": 3},
        ],
        Lora_hashes="ink fine: aa, other: bb, : cc, nothing",
        TI_hashes="bad hands: dd",
        Hashes={"model": "ff", "vae": "ee", "lora:ink fine": "old", "embed:x": 5},
    )

    assert found.model == DrawnResource(kind="checkpoint", hash="ff")
    assert found.resources == (
        DrawnResource(kind="lora", name="ink: fine", weight=1.0, hash="aa"),
        DrawnResource(kind="embed", version_id=3),
        DrawnResource(kind="vae", hash="ee"),
        DrawnResource(kind="lora", name="other", hash="bb"),
        DrawnResource(kind="embed", name="bad hands", hash="dd"),
    )


def test_an_air_says_what_an_entry_is() -> None:
    found = facts(Civitai_resources=[{"air": "urn:air:sdxl:checkpoint:civitai:1@2", "type": "lora"}])

    assert (found.model.kind, found.model.air, found.resources) == (
        "checkpoint",
        "urn:air:sdxl:checkpoint:civitai:1@2",
        (),
    )


@pytest.mark.parametrize(
    "entry",
    [
        None,
        5,
        [],
        {},
        {"modelVersionId": "3"},
        {"modelVersionId": -1},
        {"weight": "much"},
        {"weight": 1e300},
        {"air": 5},
    ],
)
def test_an_entry_of_another_form_says_nothing(entry: object) -> None:
    found = facts(Civitai_resources=[entry])

    assert found.resources in ((), (DrawnResource(),))


def test_a_value_that_is_nested_without_end_is_dropped() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]

    assert facts(odd=nested).other == {"odd": ""}
    # One level at a time: freed at once, the interpreter's own recursion would be what is tested.
    while nested:
        nested = nested.pop()
