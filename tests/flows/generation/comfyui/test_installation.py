"""What an installation says of itself, by a real one and by one that says less."""

from __future__ import annotations

import itertools

import pytest

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.installation import capabilities_of, version_of
from flows.generation.comfyui.limits import ComfyLimits
from storage.errors import BackendBroken, BackendUnavailable
from storage.records.generation.scheduler_names import comfy_names
from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings, Spacing
from tests.comfyui import ComfyServer
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer
from tests.storage.records.generation.object_info import CHOICES, INPUTS, METHODS, OPTIONAL


def test_a_real_one_has_the_nodes_that_our_graphs_use(comfyui_server: ComfyServer) -> None:
    comfyui_server.start()
    http = ComfyHttp(ComfyAddress(url=comfyui_server.url), ComfyLimits())
    found = capabilities_of(http)
    http.close()

    assert found.version == "0.3.75"
    for node, (required, outputs) in INPUTS.items():
        assert found.nodes[node].required == set(required), node
        assert found.nodes[node].inputs == {*required, *OPTIONAL.get(node, ())}, node
        assert found.nodes[node].outputs == outputs, node
        for name in set(required) & CHOICES.keys():
            assert set(CHOICES[name]) <= set(found.choices(node, name)), (node, name)
    for node, methods in METHODS.items():
        assert set(methods) <= set(found.choices(node, "upscale_method"))
    assert (found.features["img2img"], found.features["model upscaling"], found.features["Canny"]) == (
        True,
        False,
        False,
    )
    assert found.upload_limit_bytes == 100 << 20
    assert found.lists_jobs is False
    for kind, spacing in itertools.product(SCHEDULERS.values(), Spacing):
        if spacing in kind.spacings and (pair := comfy_names(SchedulerSettings(name=kind.name, spacing=spacing))):
            assert pair[0] in found.samplers, kind.name
            assert pair[1] in found.schedulers, (kind.name, spacing)


def test_the_newer_routes_are_found_where_they_are(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.jobs_cancel = 404
    found = capabilities_of(http)

    assert (found.lists_jobs, found.checkpoints, found.loras) == (True, ("mugs.safetensors",), ())


def test_one_without_the_routes_for_files_and_features_lists_them_by_its_nodes(
    http: ComfyHttp, peer: ScriptedPeer
) -> None:
    peer.script.statuses = {"models": 404, "features": 404, "jobs": 404}
    found = capabilities_of(http)

    assert (found.checkpoints, found.upload_limit_bytes, found.lists_jobs) == ((), 0, False)


def test_one_that_is_no_comfyui_is_named(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.bodies["system_stats"] = b'{"status": "ok"}'
    with pytest.raises(BackendBroken, match="system_stats is not the JSON"):
        version_of(http)
    peer.script.bodies["system_stats"] = b'{"system": {}}'
    assert version_of(http) == "unknown"
    peer.script.statuses["object_info"] = 500
    with pytest.raises(BackendUnavailable, match="object_info with status 500"):
        capabilities_of(http)
