"""What one installation of ComfyUI can do: its nodes with the values that they take, its model files, its version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storage.records.generation.drawings import Operation

MODEL, CLIP, VAE = "MODEL", "CLIP", "VAE"
"""ComfyUI's names for what a loader makes."""
FEATURE_NODES: Mapping[str, tuple[str, ...]] = {
    "img2img": ("LoadImage", "VAEEncode", "KSamplerAdvanced"),
    "inpaint": ("LoadImage", "LoadImageMask", "VAEEncode", "SetLatentNoiseMask", "ImageCompositeMasked"),
    "upscaling": ("LoadImage", "ImageScale"),
    "model upscaling": ("UpscaleModelLoader", "ImageUpscaleWithModel"),
    "adapters": ("LoraLoader",),
    "clip skip": ("CLIPSetLastLayer",),
    "guidance rescale": ("RescaleCFG",),
    "Canny": ("Canny",),
}
"""What people ask for by name, and the nodes that it needs."""
_OPERATION_NODES: Mapping[Operation, tuple[str, ...]] = {
    Operation.TXT2IMG: ("EmptyLatentImage", "KSampler", "VAEDecode"),
    Operation.IMG2IMG: (*FEATURE_NODES["img2img"], "VAEDecode"),
    Operation.INPAINT: (*FEATURE_NODES["inpaint"], "KSamplerAdvanced", "VAEDecode"),
    Operation.UPSCALE: FEATURE_NODES["upscaling"],
}
SAVED_BY = "PreviewImage"
"""The node that keeps the picture of each of our graphs."""
COMBO = "COMBO"


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A node as `object_info` describes it: the types of its outputs, its inputs, and the values of those with a list.

    `required` are the inputs that it does not run without.
    """

    outputs: tuple[str, ...] = ()
    inputs: frozenset[str] = frozenset()
    required: frozenset[str] = frozenset()
    choices: dict[str, tuple[str, ...]] = {}


class ComfyCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """An installation as it was asked last.

    `checkpoints` and `loras` are the names of its files. `lists_jobs` says whether it has the newer routes of jobs, of
    which one cancels. `upload_limit_bytes` is 0 where it names none.
    """

    version: str
    nodes: dict[str, NodeFacts]
    checkpoints: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    upload_limit_bytes: int = 0
    lists_jobs: bool = False

    def choices(self, node: str, name: str) -> tuple[str, ...]:
        """The values that an input of a node takes; none where the node or its list is missing."""
        return self.nodes[node].choices.get(name, ()) if node in self.nodes else ()

    @property
    def samplers(self) -> tuple[str, ...]:
        """The names of its samplers."""
        return self.choices("KSampler", "sampler_name")

    @property
    def schedulers(self) -> tuple[str, ...]:
        """The names of its ways to place noise levels."""
        return self.choices("KSampler", "scheduler")

    @property
    def features(self) -> dict[str, bool]:
        """Which of the named features it has."""
        return {name: not self.lacks(name) for name in FEATURE_NODES}

    @property
    def operations(self) -> tuple[str, ...]:
        """What it can make of a step, as far as its nodes say."""
        return tuple(
            operation.value
            for operation, nodes in _OPERATION_NODES.items()
            if all(node in self.nodes for node in (*nodes, SAVED_BY))
        )

    def summary(self) -> dict[str, Any]:
        """What people ask of an installation, as plain JSON."""
        return {
            "version": self.version,
            "operations": list(self.operations),
            "samplers": list(self.samplers),
            "schedulers": list(self.schedulers),
            "checkpoints": list(self.checkpoints),
            "loras": list(self.loras),
            "features": [name for name, present in self.features.items() if present],
        }

    def lacks(self, feature: str) -> tuple[str, ...]:
        """The nodes of a named feature that are not installed."""
        return tuple(node for node in FEATURE_NODES[feature] if node not in self.nodes)


def read_nodes(object_info: object) -> dict[str, NodeFacts]:
    """The nodes of an `object_info` response. What is not as expected is left out: any plug-in writes into it."""
    found: dict[str, NodeFacts] = {}
    for name, facts in _mapping(object_info).items():
        node = _mapping(facts)
        groups = _mapping(node.get("input"))
        inputs = {**_mapping(groups.get("required")), **_mapping(groups.get("optional"))}
        found[name] = NodeFacts(
            outputs=_texts(node.get("output")),
            inputs=frozenset(inputs),
            required=frozenset(_mapping(groups.get("required"))),
            choices={one: values for one, kind in inputs.items() if (values := _choices(kind)) is not None},
        )
    return found


def _choices(kind: object) -> tuple[str, ...] | None:
    """The values of an input with a list, in either of the two forms that nodes describe them in."""
    match _items(kind):
        case [values, *_] if isinstance(values, list):
            return _texts(cast(object, values))
        case [name, options, *_] if name == COMBO:
            return _texts(_mapping(options).get("options"))
        case _:
            return None


def _mapping(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def _items(value: object) -> list[object]:
    return cast(list[object], value) if isinstance(value, list) else []


def _texts(values: object) -> tuple[str, ...]:
    return tuple(value for value in _items(values) if isinstance(value, str))
