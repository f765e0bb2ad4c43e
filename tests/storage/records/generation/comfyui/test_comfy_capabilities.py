"""What an installation can do is read from what it says of its nodes, whatever else plug-ins write there."""

from __future__ import annotations

import msgspec
import pytest

from storage.records.generation.comfyui.comfy_capabilities import NodeFacts, read_nodes
from tests.storage.records.generation.object_info import SAMPLERS, SCHEDULERS, installed, object_info


def test_lists_of_values_are_read_in_both_forms() -> None:
    nodes = read_nodes(object_info())

    assert nodes["KSampler"].choices["sampler_name"] == nodes["KSamplerAdvanced"].choices["sampler_name"]
    assert nodes["KSampler"].choices["scheduler"] == tuple(SCHEDULERS)
    assert "seed" not in nodes["KSampler"].choices


def test_outputs_and_inputs_are_those_of_the_node() -> None:
    composite = read_nodes(object_info())["ImageCompositeMasked"]

    assert composite.outputs == ("IMAGE",)
    assert composite.inputs - composite.required == {"mask"}


@pytest.mark.parametrize(
    "described",
    [
        None,
        [],
        {"input": None, "output": None},
        {"input": {"required": []}, "output": "IMAGE"},
        {"input": {"required": {"a": None, "b": 5, "c": [], "d": ["COMBO"], "e": ["COMBO", {"options": 3}]}}},
    ],
)
def test_a_node_that_is_described_in_another_way_says_less_and_breaks_nothing(described: object) -> None:
    [facts] = read_nodes({"Odd": described}).values()

    assert facts.outputs == ()
    assert all(values == () for values in facts.choices.values())


@pytest.mark.parametrize("described", [None, [], "nodes", 5])
def test_what_is_no_list_of_nodes_has_none(described: object) -> None:
    assert read_nodes(described) == {}


def test_features_are_there_when_all_their_nodes_are() -> None:
    whole, part = installed(), installed(without=("RescaleCFG", "KSampler"))

    assert whole.features == {**whole.features, "img2img": True, "guidance rescale": True, "model upscaling": False}
    assert part.features["guidance rescale"] is False
    assert whole.lacks("Canny") == ("Canny",)
    assert (whole.samplers, part.samplers) == (tuple(SAMPLERS), ())
    assert NodeFacts() == NodeFacts(outputs=())


def test_the_summary_is_plain_json_of_what_people_ask_for() -> None:
    found = installed("mugs.safetensors", without=("SetLatentNoiseMask",)).summary()

    assert msgspec.json.decode(msgspec.json.encode(found)) == found
    assert found["operations"] == ["txt2img", "img2img", "upscale"]
    assert (found["checkpoints"], found["schedulers"]) == (["mugs.safetensors"], SCHEDULERS)
    assert "inpaint" not in found["features"]
    assert "adapters" in found["features"]
