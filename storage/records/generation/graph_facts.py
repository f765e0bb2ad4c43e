"""How a picture was drawn, read from the graph of nodes that ComfyUI keeps in it: its form for the API.

A graph has no schema, and extensions add nodes of their own. Followed are the links from the first sampler to its
texts, its latents and its model; a node counts by the inputs that it has rather than by its class. Nodes that are not
understood are named, since the picture is not that of the rest alone.

Source: comfyanonymous/ComfyUI, nodes.py (inputs of the built-in nodes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from storage.records.generation.parameter_values import DrawnFacts, DrawnResource

TEXTS = ("text", "text_g", "string", "prompt", "value", "wildcard_text", "populated_text")
"""Inputs that hold words, by the names that nodes have for them; `text_g` is that of SDXL's larger encoder."""
NUMBERS = ("value", "int", "float", "number", "seed", "noise_seed")
"""Inputs of nodes that do nothing but hold a number for another one."""
PLAIN = frozenset(
    {
        "VAEDecode",
        "VAEDecodeTiled",
        "VAEEncode",
        "VAEEncodeForInpaint",
        "SaveImage",
        "PreviewImage",
        "SaveAnimatedWEBP",
        "Note",
    }
)
"""Nodes that say nothing of how a picture was drawn that its request would not."""
_LARGEST = 10**20


class _Walk:
    """A graph, and which of its nodes were understood."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        nodes = {name: cast(dict[str, Any], node) for name, node in graph.items() if isinstance(node, dict)}
        self.kinds = {name: str(node.get("class_type", "")) for name, node in nodes.items()}
        self.inputs = {
            name: cast(dict[str, Any], node["inputs"]) if isinstance(node.get("inputs"), dict) else {}
            for name, node in nodes.items()
        }
        self.understood: set[str] = set()

    def target(self, value: object) -> str:
        """The node that a link leads to; empty for what is no link."""
        linked = cast(list[Any], value) if isinstance(value, list) else []
        name = str(linked[0]) if len(linked) == 2 and isinstance(linked[0], str | int) else ""
        return name if name in self.inputs else ""

    def reached(self, start: object, *names: str) -> Iterator[str]:
        """Nodes from a link on, nearest first, over the inputs of these names; each once."""
        waiting, seen = [self.target(start)], set[str]()
        for name in waiting:
            if name and name not in seen:
                seen.add(name)
                yield name
                waiting += [self.target(self.inputs[name].get(key)) for key in names]

    def number(self, name: str, *keys: str) -> float | None:
        """A number of a node, or of the node that holds it."""
        for key in keys:
            value = self.inputs[name].get(key)
            holders = [self.inputs[holder].get(held) for holder in self.reached(value) for held in (key, *NUMBERS)]
            for found in (value, *holders):
                if isinstance(found, int | float) and not isinstance(found, bool) and abs(found) < _LARGEST:
                    self.understood |= {self.target(value)}
                    return found
        return None

    def whole(self, name: str, *keys: str) -> int | None:
        """A whole number that is not negative."""
        found = self.number(name, *keys)
        return int(found) if found is not None and found >= 0 else None

    def text(self, name: str, key: str) -> str:
        """A choice by name, as samplers have it."""
        value = self.inputs[name].get(key)
        return value if isinstance(value, str) else ""


def facts_of_graph(graph: Mapping[str, Any]) -> DrawnFacts:
    """What a graph says; empty for one without a sampler of the built-in form. Never raises."""
    walk = _Walk(graph)
    samplers = [name for name, inputs in walk.inputs.items() if {"positive", "latent_image", "steps"} <= inputs.keys()]
    # Later samplers draw over the pictures of the first, as hires fix does.
    first = next((name for name in samplers if _size(walk, name)), samplers[0] if samplers else "")
    if not first:
        return DrawnFacts()
    walk.understood.add(first)
    size = _size(walk, first)
    model, adapters = _models(walk, first)
    return DrawnFacts(
        prompt=_words(walk, first, "positive"),
        negative_prompt=_words(walk, first, "negative"),
        steps=walk.whole(first, "steps"),
        sampler=walk.text(first, "sampler_name"),
        schedule_type=walk.text(first, "scheduler"),
        guidance_scale=walk.number(first, "cfg"),
        guidance_rescale=_rescale(walk, first),
        seed=walk.whole(first, "seed", "noise_seed"),
        width=size[0] if size else None,
        height=size[1] if size else None,
        clip_skip=_clip_skip(walk, first),
        strength=_strength(walk, first),
        model=model,
        resources=adapters,
        other=dict(_not_understood(walk)),
    )


def _size(walk: _Walk, sampler: str) -> tuple[int, int] | None:
    """Of the empty latents that a sampler begins with; None where it draws over something."""
    name = walk.target(walk.inputs[sampler].get("latent_image"))
    if not name or walk.target(walk.inputs[name].get("samples")) or "pixels" in walk.inputs[name]:
        return None
    width, height = walk.whole(name, "width"), walk.whole(name, "height")
    if not width or not height:
        return None
    walk.understood.add(name)
    return width, height


def _words(walk: _Walk, sampler: str, side: str) -> str:
    """The nearest text behind the conditioning of one side; nodes between, such as ControlNet's, have both sides."""
    for name in walk.reached(walk.inputs[sampler].get(side), side, "conditioning", "conditioning_1", "conditioning_to"):
        if walk.kinds[name] == "ConditioningZeroOut":
            walk.understood.add(name)
            return ""
        for value in [walk.inputs[name].get(key) for key in TEXTS]:
            held = ((holder, walk.inputs[holder].get(key)) for holder in walk.reached(value) for key in TEXTS)
            for place, text in ((name, value), *held):
                if isinstance(text, str):
                    walk.understood |= {name, place}
                    return text
    return ""


def _models(walk: _Walk, sampler: str) -> tuple[DrawnResource, tuple[DrawnResource, ...]]:
    """The checkpoint and the adapters on the way to it, in the order in which they are mixed in."""
    adapters: list[DrawnResource] = []
    for name in walk.reached(walk.inputs[sampler].get("model"), "model"):
        checkpoint = walk.text(name, "ckpt_name") or walk.text(name, "unet_name")
        if checkpoint:
            walk.understood.add(name)
            return DrawnResource(kind="checkpoint", name=_stem(checkpoint)), tuple(reversed(adapters))
        if file := walk.text(name, "lora_name"):
            walk.understood.add(name)
            weight = walk.number(name, "strength_model", "strength")
            adapters.append(DrawnResource(kind="lora", name=_stem(file), weight=weight))
    return DrawnResource(kind="checkpoint"), tuple(reversed(adapters))


def _rescale(walk: _Walk, sampler: str) -> float | None:
    for name in walk.reached(walk.inputs[sampler].get("model"), "model"):
        if walk.kinds[name] == "RescaleCFG":
            walk.understood.add(name)
            return walk.number(name, "multiplier")
    return None


def _clip_skip(walk: _Walk, sampler: str) -> int | None:
    """ComfyUI counts layers from the end: its -2 is 2 of A1111's."""
    for name in walk.reached(walk.inputs[sampler].get("positive"), "positive", "conditioning", "clip"):
        layers = walk.number(name, "stop_at_clip_layer")
        if layers is not None and -100 < layers < 0:
            walk.understood.add(name)
            return int(-layers)
    return None


def _strength(walk: _Walk, sampler: str) -> float | None:
    """How much of its source a sampler replaces; None for all of it."""
    denoise, start, steps = (walk.number(sampler, key) for key in ("denoise", "start_at_step", "steps"))
    if start and steps and 0 < start < steps:
        return 1 - start / steps
    return denoise if denoise is not None and denoise < 1 else None


def _not_understood(walk: _Walk) -> Iterator[tuple[str, str]]:
    """Nodes that may have changed the picture, by their class."""
    for name, kind in walk.kinds.items():
        if name not in walk.understood and kind not in PLAIN:
            yield f"node {kind or name}", name


def _stem(file: str) -> str:
    return file.replace("\\", "/").rsplit("/", 1)[-1].rsplit(".", 1)[0]
