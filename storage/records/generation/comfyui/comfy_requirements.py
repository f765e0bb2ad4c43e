"""What an installation of ComfyUI lacks for a drawing: asked when one is chosen, and again before it is used."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterable

from storage.records.generation.comfyui.comfy_capabilities import FEATURE_NODES, ComfyCapabilities
from storage.records.generation.comfyui.comfy_graphs import Graph, GraphParts, field_of, graph_of
from storage.records.generation.comfyui.comfy_models import (
    NODE,
    ComfyLoader,
    ComfyNames,
    InstalledModel,
    loader_node,
    loader_of,
)
from storage.records.generation.drawings import Drawing, Operation

DDIM = ("ddim", "ddim_uniform")
UPLOADED = frozenset({"LoadImage", "LoadImageMask"})
"""Nodes whose list of files grows with each upload."""
SUGGESTED = 3


def missing_for(
    drawing: Drawing,
    capabilities: ComfyCapabilities,
    names: ComfyNames = ComfyNames(),  # noqa: B008 - frozen
    sampler: tuple[str, str] = DDIM,
    features: Iterable[str] = (),
) -> list[str]:
    """One sentence for each thing that the installation lacks for a drawing; none if it can be drawn there.

    sampler: ComfyUI's names of the drawing's scheduler. features: what is asked for beyond the drawing, by the names in
    FEATURE_NODES.
    """
    lacking = lacking_for(drawing, capabilities, names, sampler, features)
    return [f"{field}: {reason}" for field, reasons in lacking.items() for reason in reasons]


def lacking_for(
    drawing: Drawing,
    capabilities: ComfyCapabilities,
    names: ComfyNames,
    sampler: tuple[str, str],
    features: Iterable[str] = (),
) -> dict[str, list[str]]:
    """What is missing, by the field of a request that asks for it."""
    lacking: dict[str, list[str]] = defaultdict(list)
    for feature in features:
        if feature not in FEATURE_NODES:
            lacking["operation"].append(f"'{feature}' is nothing that ComfyUI is asked for")
        elif missing := capabilities.lacks(feature):
            lacking["operation"].append(f"no {feature}: it lacks the nodes {', '.join(missing)}")
    if drawing.shape > 1:
        lacking["shape"].append(f"ComfyUI draws one picture at a time, and not {drawing.shape} together; leave it out")
    loader, files = loader_of(names.model(drawing.model)), tuple(map(names.adapter, drawing.adapters))
    if drawing.operation is not Operation.UPSCALE:
        # The rest is looked at as if the model were there, so that all that is missing is said at once.
        loader = _check_models(drawing, capabilities, names, lacking) or loader
    parts = GraphParts(loader=loader, sampler=sampler, adapters=files, source="source.png", mask="mask.png")
    _check_graph(graph_of(drawing, 0, parts), capabilities, lacking)
    return dict(lacking)


def _check_models(
    drawing: Drawing, capabilities: ComfyCapabilities, names: ComfyNames, lacking: dict[str, list[str]]
) -> ComfyLoader | None:
    """The loader of the model, if it is there; adapters and clip skip are looked at, too."""
    loader = loader_for(drawing, capabilities, names)
    if loader is None:
        lacking["model"].append(_no_model(drawing, names.model(drawing.model)))
    elif loader.own_texts:
        wanted = {"adapters": bool(drawing.adapters), "clipSkip": bool(drawing.clip_skip)}
        for field in (field for field, asked in wanted.items() if asked):
            lacking[field].append(f"the loader {loader.node} takes none")
    for adapter in drawing.adapters:
        if (file := names.adapter(adapter)) not in capabilities.loras:
            lacking["adapters"].append(
                f"no file {file} in its models/loras for version {adapter.version_id}{_called(adapter.name)}"
            )
    return loader


def loader_for(drawing: Drawing, capabilities: ComfyCapabilities, names: ComfyNames) -> ComfyLoader | None:
    """How the installation loads a drawing's model; None if it cannot."""
    model = names.model(drawing.model)
    if model.name.startswith(NODE):
        return loader_node(model, capabilities)
    return loader_of(model) if model.name in capabilities.checkpoints else None


def _no_model(drawing: Drawing, model: InstalledModel) -> str:
    version = f"version {drawing.model.version_id}{_called(drawing.model.name)}"
    if model.name.startswith(NODE):
        return f"no node {model.name.removeprefix(NODE)} that loads {version}"
    return f"no file {model.name} in its models/checkpoints for {version}"


def _check_graph(graph: Graph, capabilities: ComfyCapabilities, lacking: dict[str, list[str]]) -> None:
    for name, node in graph.items():
        kind, inputs = node["class_type"], node["inputs"]
        facts = capabilities.nodes.get(kind)
        if facts is None:
            lacking[field_of(name)].append(f"no node {kind}")
            continue
        if strange := sorted((set(inputs) - facts.inputs) | (facts.required - set(inputs))):
            lacking[field_of(name)].append(f"its node {kind} is of another version: {', '.join(strange)}")
        for one in inputs.keys() & facts.choices.keys():
            # Files have been looked up by their own lists.
            if kind not in UPLOADED and one not in ("ckpt_name", "lora_name") and inputs[one] not in facts.choices[one]:
                lacking[field_of(name, one)].append(_no_choice(one, str(inputs[one]), facts.choices[one]))


def _no_choice(name: str, value: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(value, known, SUGGESTED, 0.4)
    return f"no {name} '{value}'" + (f"; the nearest are: {', '.join(near)}" if near else "")


def _called(name: str) -> str:
    return f" ({name})" if name else ""
