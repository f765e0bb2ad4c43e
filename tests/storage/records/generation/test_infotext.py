"""The settings line: values quoted as A1111 quotes them, and JSON between them as Civitai finds it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records.generation.infotext import (
    MAX_SETTINGS,
    embedded,
    is_settings_line,
    quoted,
    read_settings,
    setting,
)

CIVITAI = re.compile(r", Civitai resources:\s*(\[[^\]]+\])")
"""How Civitai's site finds its list (src/utils/metadata/automatic.metadata.ts)."""
A1111 = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""How A1111 finds keys and values (modules/infotext_utils.py)."""
TEXTS = st.text(st.characters(codec="utf-8"), max_size=30)


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("Euler a", "Euler a"),
        ("a, b", '"a, b"'),
        ("a: b", '"a: b"'),
        ("a\nb", '"a\\nb"'),
        ('a "b"', 'a "b"'),
        ('"a"', '"\\"a\\""'),
        (" a", '" a"'),
        ("[1]", '"[1]"'),
        ("", '""'),
        ("é", "é"),
    ],
)
def test_a_value_is_quoted_where_it_would_be_read_wrongly(value: str, written: str) -> None:
    assert quoted(value) == written


@pytest.mark.parametrize(("value", "written"), [(7.0, "7"), (7.5, "7.5"), (0.1 + 0.2, "0.30000000000000004"), (3, "3")])
def test_a_number_is_written_short_and_exact(value: float, written: str) -> None:
    assert setting("CFG scale", value) == f"CFG scale: {written}"


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(["Model", "Lora hashes", "Batch shape", "VAE/x-y"]), TEXTS))
def test_settings_are_read_as_they_were_written(values: dict[str, str]) -> None:
    line = ", ".join(setting(key, value) for key, value in values.items())

    assert read_settings(line) == values


@settings(max_examples=150, deadline=None)
@given(name=TEXTS)
def test_a_list_between_the_settings_is_found_by_civitai_and_hides_no_key_of_a1111(name: str) -> None:
    resources: list[dict[str, Any]] = [{"type": "lora", "modelName": name, "air": "urn:air:sd1:lora:civitai:4@9"}]
    line = f"Steps: 1, Seed: 2, Civitai resources: {embedded(resources)}"

    found = CIVITAI.search(line)

    assert found is not None
    assert json.loads(found[1]) == resources == read_settings(line)["Civitai resources"]
    assert [key for key, _value in A1111.findall(line)] == ["Steps", "Seed", "Civitai resources", "urn"]


def test_a_list_between_the_settings_says_nothing_in_the_name_of_another_setting() -> None:
    line = f"Steps: 1, Civitai resources: {embedded([{'modelName': 'Seed: 5, Size: 1x1'}])}"

    assert dict(A1111.findall(line)).keys() == {"Steps", "Civitai resources"}


def test_the_last_of_a_key_counts_and_commas_stay_in_a_value_without_quotes() -> None:
    assert read_settings("Model: a, b, Seed: 1, Seed: 2,, x ,y") == {"Model": "a, b", "Seed": "2,, x ,y"}


def test_what_looks_like_json_and_is_none_is_text() -> None:
    assert read_settings('a: {b}, c: "d" e, f: [1, g: "h"') == {"a": "{b}", "c": '"d" e', "f": "[1", "g": "h"}


def test_no_more_settings_are_read_than_any_tool_writes() -> None:
    assert len(read_settings(", ".join(f"k{number}: 1" for number in range(5_000)))) == MAX_SETTINGS


@pytest.mark.parametrize(
    ("line", "is_one"),
    [
        ("Steps: 25, Sampler: DDIM, Seed: 1", True),
        ("Steps:25,Sampler:DDIM,Seed:1", True),
        ("Steps: 25, Sampler: DDIM", False),
        ("a mug, Steps: 25, Sampler: DDIM, Seed: 1", False),
        ("a: 1, b: 2, c: 3", False),
    ],
)
def test_a_settings_line_begins_with_a_known_key_and_has_three(line: str, is_one: bool) -> None:
    assert is_settings_line(line) is is_one
