"""What a ComfyUI says of itself: version, nodes, files, and which of the newer routes it has."""

from __future__ import annotations

from typing import Any

import msgspec

from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.limits import NODES_BYTES
from storage.errors import BackendUnavailable
from storage.records.generation.comfyui.comfy_capabilities import ComfyCapabilities, read_nodes

UNKNOWN_VERSION = "unknown"


class _System(msgspec.Struct, frozen=True):
    comfyui_version: str = UNKNOWN_VERSION


class _Stats(msgspec.Struct, frozen=True):
    system: _System


class _Features(msgspec.Struct, frozen=True):
    max_upload_size: int = 0


def version_of(http: ComfyHttp) -> str:
    """Its version: a cheap check that it is there. Raises BackendUnavailable, BackendBroken."""
    return http.read("system_stats", _Stats).system.comfyui_version


def capabilities_of(http: ComfyHttp) -> ComfyCapabilities:
    """All that it can do. Raises BackendUnavailable, BackendBroken."""
    version = version_of(http)
    nodes = read_nodes(http.read("object_info", dict[str, Any], NODES_BYTES))
    features = http.read("features", _Features) if http.has("features") else _Features()
    capabilities = ComfyCapabilities(
        version=version,
        nodes=nodes,
        upload_limit_bytes=features.max_upload_size,
        # With a limit, else it begins to list ten thousand.
        lists_jobs=http.has("jobs?limit=1"),
    )
    return msgspec.structs.replace(
        capabilities,
        checkpoints=_files(http, "checkpoints", capabilities.choices("CheckpointLoaderSimple", "ckpt_name")),
        loras=_files(http, "loras", capabilities.choices("LoraLoader", "lora_name")),
    )


def _files(http: ComfyHttp, folder: str, listed: tuple[str, ...]) -> tuple[str, ...]:
    """The files of a model folder; where the route is missing, those that the node lists."""
    try:
        return tuple(http.read(f"models/{folder}", list[str], NODES_BYTES))
    except BackendUnavailable:
        return listed
