"""A graph of ComfyUI says how a picture was drawn; nodes that are not understood are named, and none makes it fail."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records.generation.graph_facts import facts_of_graph
from storage.records.generation.parameter_values import DrawnFacts, DrawnResource


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    """A node of a graph."""
    return {"class_type": kind, "inputs": inputs}


def text_to_image(**others: dict[str, Any]) -> dict[str, Any]:
    """ComfyUI's first template: the graph that its pages open with; `others` replace nodes or are added."""
    return {
        "3": node(
            "KSampler",
            seed=156680208700286,
            steps=20,
            cfg=8,
            sampler_name="dpmpp_2m",
            scheduler="karras",
            denoise=1,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": node("CheckpointLoaderSimple", ckpt_name="sd15\\v1-5-pruned.safetensors"),
        "5": node("EmptyLatentImage", width=512, height=768, batch_size=1),
        "6": node("CLIPTextEncode", text="a glass bottle", clip=["4", 1]),
        "7": node("CLIPTextEncode", text="watermark", clip=["4", 1]),
        "8": node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": node("SaveImage", filename_prefix="ComfyUI", images=["8", 0]),
    } | others


def sampler(**inputs: Any) -> dict[str, Any]:
    """The template's sampler with other inputs."""
    return node("KSampler", **(text_to_image()["3"]["inputs"] | inputs))


def test_the_template_of_comfyui_is_read() -> None:
    assert facts_of_graph(text_to_image()) == DrawnFacts(
        prompt="a glass bottle",
        negative_prompt="watermark",
        steps=20,
        sampler="dpmpp_2m",
        schedule_type="karras",
        guidance_scale=8,
        seed=156680208700286,
        width=512,
        height=768,
        model=DrawnResource(kind="checkpoint", name="v1-5-pruned"),
    )


def test_adapters_clip_skip_and_rescale_are_found_on_the_way_to_the_model() -> None:
    found = facts_of_graph(
        text_to_image(
            **{
                "3": sampler(model=["r", 0]),
                "r": node("RescaleCFG", model=["b", 0], multiplier=0.7),
                "b": node(
                    "LoraLoader", model=["a", 0], clip=["a", 1], lora_name="ink.v2.safetensors", strength_model=0.5
                ),
                "a": node("LoraLoaderModelOnly", model=["4", 0], lora_name="x/wash.pt", strength_model=["f", 0]),
                "f": node("PrimitiveFloat", value=-0.25),
                "c": node("CLIPSetLastLayer", clip=["b", 1], stop_at_clip_layer=-2),
                "6": node("CLIPTextEncode", text="a glass bottle", clip=["c", 0]),
            }
        )
    )

    assert (found.clip_skip, found.guidance_rescale, found.model.name, found.other) == (2, 0.7, "v1-5-pruned", {})
    assert [(one.kind, one.name, one.weight) for one in found.resources] == [
        ("lora", "wash", -0.25),
        ("lora", "ink.v2", 0.5),
    ]


def test_texts_and_numbers_that_other_nodes_hold_are_found() -> None:
    found = facts_of_graph(
        text_to_image(
            **{
                "3": sampler(seed=["s", 0], steps=["n", 0], positive=["k", 0], negative=["k", 1]),
                "s": node("Seed (rgthree)", seed=7),
                "n": node("PrimitiveInt", value=12),
                "k": node("ControlNetApplyAdvanced", positive=["6", 0], negative=["z", 0], strength=1),
                "6": node("CLIPTextEncodeSDXL", text_g=["t", 0], text_l="other", clip=["4", 1]),
                "t": node("PrimitiveString", value="a held text"),
                "z": node("ConditioningZeroOut", conditioning=["6", 0]),
            }
        )
    )

    assert (found.seed, found.steps, found.prompt, found.negative_prompt) == (7, 12, "a held text", "")
    assert found.other == {"node ControlNetApplyAdvanced": "k", "node CLIPTextEncode": "7"}


def test_of_a_hires_fix_the_first_pass_is_read_and_the_second_is_named() -> None:
    second = {"3": node("LatentUpscale", samples=["first", 0], width=1024, height=1536)}
    first = {"first": sampler(), "second": sampler(latent_image=["3", 0], denoise=0.5, seed=2)}

    found = facts_of_graph(text_to_image(**second) | dict(reversed(first.items())))

    assert (found.seed, found.width, found.strength) == (156680208700286, 512, None)
    assert found.other == {"node LatentUpscale": "3", "node KSampler": "second"}


@pytest.mark.parametrize(
    ("inputs", "strength"), [({"denoise": 0.6}, 0.6), ({"start_at_step": 5, "end_at_step": 10_000}, 0.75), ({}, None)]
)
def test_how_much_of_a_source_is_replaced_is_read(inputs: dict[str, Any], strength: float | None) -> None:
    drawn_over = {"3": sampler(latent_image=["e", 0], **inputs), "e": node("VAEEncode", pixels=["l", 0])}

    found = facts_of_graph(text_to_image(**drawn_over, l=node("LoadImage", image="a.png")))

    assert (found.strength, found.width) == (strength, None)
    assert "node LoadImage" in found.other


@pytest.mark.parametrize(
    "graph",
    [{}, {"1": 5}, {"1": node("SamplerCustom", noise_seed=1)}, {"1": {"class_type": 5, "inputs": []}}],
    ids=range(4),
)
def test_a_graph_without_a_sampler_of_the_built_in_form_says_nothing(graph: dict[str, Any]) -> None:
    assert facts_of_graph(graph) == DrawnFacts()


def test_a_graph_that_leads_to_itself_is_read() -> None:
    found = facts_of_graph(
        {
            "1": sampler(model=["1", 0], positive=["1", 0], negative=["2", 0], latent_image=["1", 0]),
            "2": node("x", text=["2", 0]),
        }
    )

    assert (found.prompt, found.steps, found.model.name) == ("", 20, "")


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.sampled_from(["3", "6", 0]))
)
NAMES = st.sampled_from(["3", "4", "5", "6", "7"])
INPUTS = st.sampled_from(
    ["seed", "steps", "cfg", "model", "positive", "latent_image", "text", "width", "clip", "ckpt_name", "lora_name"]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(NAMES, INPUTS, ODD), max_size=6), st.dictionaries(NAMES, ODD, max_size=1))
def test_no_graph_makes_it_fail(changes: list[tuple[str, str, object]], nodes: dict[str, object]) -> None:
    graph = text_to_image()
    for name, key, value in changes:
        graph[name]["inputs"][key] = value

    facts_of_graph(graph | nodes)
