"""Each operation's graph: what feeds what, and which field of a request each node stands for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.records.generation.comfyui.comfy_graphs import GraphParts, field_of, graph_of, steps_drawn
from storage.records.generation.comfyui.comfy_models import InstalledModel, loader_of
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel, Operation
from storage.records.generation.graph_facts import facts_of_graph
from tests.storage.records.generation.object_info import INPUTS, OPTIONAL

DRAWING = Drawing(
    model=DrawnModel(version_id=1, family="sd1", files={}),
    images=(DrawnImage(prompt="a mug", seed=5), DrawnImage(prompt="a (red:1.2) mug", seed=6)),
    negative_prompt="blurred",
    width=64,
    height=96,
    steps=20,
    guidance_scale=7.0,
)
PARTS = GraphParts(
    loader=loader_of(InstalledModel(name="mugs.safetensors")),
    sampler=("dpmpp_2m", "karras"),
    source="source.png",
    source_size=(64, 96),
    mask="mask.png",
)
ADAPTERS = (DrawnAdapter(version_id=2, sha256="a" * 64, strength=0.8), DrawnAdapter(version_id=3, sha256="b" * 64))


def drawing(operation: Operation = Operation.TXT2IMG, **changes: Any) -> Drawing:
    return msgspec.structs.replace(DRAWING, operation=operation, **changes)


def inputs(graph: dict[str, Any], node: str) -> dict[str, Any]:
    return graph[node]["inputs"]


def test_a_picture_from_nothing() -> None:
    graph = graph_of(drawing(), 1, PARTS)

    assert {name: node["class_type"] for name, node in graph.items()} == {
        "loader": "CheckpointLoaderSimple",
        "positive": "CLIPTextEncode",
        "negative": "CLIPTextEncode",
        "empty": "EmptyLatentImage",
        "sampler": "KSampler",
        "decoded": "VAEDecode",
        "save": "PreviewImage",
    }
    assert inputs(graph, "positive") == {"text": "a (red:1.2) mug", "clip": ["loader", 1]}
    assert inputs(graph, "negative")["text"] == "blurred"
    assert inputs(graph, "empty") == {"width": 64, "height": 96, "batch_size": 1}
    assert inputs(graph, "sampler") == {
        "model": ["loader", 0],
        "seed": 6,
        "steps": 20,
        "cfg": 7.0,
        "sampler_name": "dpmpp_2m",
        "scheduler": "karras",
        "positive": ["positive", 0],
        "negative": ["negative", 0],
        "latent_image": ["empty", 0],
        "denoise": 1.0,
    }
    assert inputs(graph, "decoded") == {"samples": ["sampler", 0], "vae": ["loader", 2]}


def test_adapters_clip_skip_and_rescale_are_a_chain_in_the_drawings_order() -> None:
    parts = msgspec.structs.replace(PARTS, adapters=("one.safetensors", "two.safetensors"))
    graph = graph_of(drawing(adapters=ADAPTERS, clip_skip=2, guidance_rescale=0.7), 0, parts)

    assert inputs(graph, "adapter-0") == {
        "model": ["loader", 0],
        "clip": ["loader", 1],
        "lora_name": "one.safetensors",
        "strength_model": 0.8,
        "strength_clip": 0.8,
    }
    assert (inputs(graph, "adapter-1")["model"], inputs(graph, "adapter-1")["clip"]) == (
        ["adapter-0", 0],
        ["adapter-0", 1],
    )
    assert inputs(graph, "clip") == {"clip": ["adapter-1", 1], "stop_at_clip_layer": -2}
    assert inputs(graph, "rescale") == {"model": ["adapter-1", 0], "multiplier": 0.7}
    assert inputs(graph, "positive")["clip"] == inputs(graph, "negative")["clip"] == ["clip", 0]
    assert inputs(graph, "sampler")["model"] == ["rescale", 0]


def test_without_guidance_there_is_nothing_to_rescale() -> None:
    graph = graph_of(drawing(guidance_scale=0.5, guidance_rescale=0.7), 0, PARTS)

    assert "rescale" not in graph
    assert inputs(graph, "sampler")["cfg"] == 1.0


@pytest.mark.parametrize(("strength", "steps", "begin"), [(0.5, 10, 10), (1.0, 20, 0), (0.01, 1, 19), (0.74, 14, 6)])
def test_a_source_is_drawn_over_in_the_last_steps_of_the_schedule(strength: float, steps: int, begin: int) -> None:
    wanted = drawing(Operation.IMG2IMG, strength=strength)
    graph = graph_of(wanted, 0, PARTS)

    assert steps_drawn(wanted) == steps
    sampler = inputs(graph, "sampler")
    assert (sampler["steps"], sampler["start_at_step"], sampler["noise_seed"]) == (20, begin, 5)
    assert inputs(graph, "encoded") == {"pixels": ["source", 0], "vae": ["loader", 2]}
    assert "scaled" not in graph


def test_a_source_of_another_size_is_scaled() -> None:
    graph = graph_of(drawing(Operation.IMG2IMG), 0, msgspec.structs.replace(PARTS, source_size=(32, 48)))

    assert (inputs(graph, "scaled")["width"], inputs(graph, "scaled")["height"]) == (64, 96)
    assert inputs(graph, "encoded")["pixels"] == ["scaled", 0]


def test_an_upscale_scales_and_draws_nothing() -> None:
    wanted = drawing(Operation.UPSCALE)
    graph = graph_of(wanted, 0, msgspec.structs.replace(PARTS, source_size=(32, 48)))

    assert list(graph) == ["source", "scaled", "save"]
    assert inputs(graph, "save") == {"images": ["scaled", 0]}
    assert steps_drawn(wanted) == 0


def test_a_mask_says_what_is_drawn_and_what_is_put_back() -> None:
    parts = msgspec.structs.replace(PARTS, source_size=(32, 48))
    graph = graph_of(drawing(Operation.INPAINT), 0, parts)

    assert inputs(graph, "masked") == {"samples": ["encoded", 0], "mask": ["mask", 0]}
    assert inputs(graph, "kept")["destination"] == ["scaled", 0]
    assert (inputs(graph, "kept")["source"], inputs(graph, "kept")["mask"]) == (["decoded", 0], ["mask", 0])
    assert inputs(graph, "save") == {"images": ["kept", 0]}


def test_a_vae_of_another_factor_gets_as_many_latents_as_it_needs() -> None:
    parts = msgspec.structs.replace(PARTS, loader=loader_of(InstalledModel(name="m", pixels_per_latent=4)))

    assert inputs(graph_of(drawing(), 0, parts), "empty") == {"width": 128, "height": 192, "batch_size": 1}


def test_a_graph_is_read_back_as_the_drawing_that_it_was_made_of() -> None:
    parts = msgspec.structs.replace(PARTS, adapters=("one.safetensors", "two.safetensors"))
    whole = {"adapters": ADAPTERS, "clip_skip": 2, "guidance_rescale": 0.7}
    plain, edit = (
        facts_of_graph(graph_of(drawing(one, strength=0.5, **whole), 1, parts))
        for one in (Operation.TXT2IMG, Operation.IMG2IMG)
    )

    assert (plain.prompt, plain.negative_prompt, plain.seed) == ("a (red:1.2) mug", "blurred", 6)
    assert (plain.width, plain.height, plain.steps, plain.guidance_scale) == (64, 96, 20, 7.0)
    assert (plain.sampler, plain.schedule_type, plain.clip_skip) == ("dpmpp_2m", "karras", 2)
    assert [(one.name, one.weight) for one in plain.resources] == [("one", 0.8), ("two", 1.0)]
    assert (plain.guidance_rescale, plain.other) == (0.7, {})
    assert edit.strength == 0.5


@pytest.mark.parametrize("operation", Operation)
def test_every_node_has_the_inputs_that_comfyui_asks_for(operation: Operation) -> None:
    parts = msgspec.structs.replace(PARTS, adapters=("one", "two"), source_size=(32, 48))
    whole = drawing(operation, adapters=ADAPTERS, clip_skip=1, guidance_rescale=0.5)

    for name, node in graph_of(whole, 0, parts).items():
        required, _ = INPUTS[node["class_type"]]
        assert set(required) <= set(node["inputs"]), name
        assert set(node["inputs"]) <= {*required, *OPTIONAL.get(node["class_type"], ())}, name
        if name not in ("decoded", "save"):
            assert field_of(name, "width" if "width" in node["inputs"] else "") != "backend", name


def test_a_nodes_input_names_the_field_it_came_from() -> None:
    assert field_of("sampler", "steps") == "steps"
    assert field_of("sampler", "sampler_name") == "scheduler"
    assert field_of("adapter-3", "lora_name") == "adapters"
    assert field_of("loader", "ckpt_name") == "model"
    assert field_of("empty", "height") == "height"
    assert field_of("decoded", "vae") == "backend"
