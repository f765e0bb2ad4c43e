"""A graph is submitted once for an id, and ComfyUI's reasons come back as fields."""

from __future__ import annotations

import json
from typing import Any

import pytest

from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.prompt_states import PromptState
from flows.generation.comfyui.prompts import client_id_of, prompt_id_of, submit_once, withdraw
from storage.errors import BackendBroken, BackendRefused, BackendUnavailable
from tests.flows.generation.comfyui.conftest import IMPATIENT, QUICK, drawing, pictures
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer


def submit(http: ComfyHttp, prompt_id: str = "id") -> None:
    submit_once(http, {"save": {"class_type": "PreviewImage", "inputs": {}}}, prompt_id, "client")


def test_an_id_is_of_one_picture_and_one_key() -> None:
    wanted = drawing(images=pictures(1, 2))
    ids = {
        prompt_id_of(wanted, 0, "step"),
        prompt_id_of(wanted, 1, "step"),
        prompt_id_of(wanted, 0, "other"),
        prompt_id_of(drawing(images=pictures(1, 2), steps=5), 0, "step"),
    }
    assert len(ids) == 4
    assert prompt_id_of(wanted, 0, "step") in ids
    assert client_id_of("step") == client_id_of("step") != client_id_of("other")


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("starts", [True, False])
def test_the_same_id_is_submitted_once(http: ComfyHttp, peer: ScriptedPeer, ends: bool, starts: bool) -> None:
    peer.script.ends, peer.script.starts = ends, starts
    for _ in range(3):
        submit(http)
    assert len(peer.submitted) == 1


@pytest.mark.parametrize("interrupted", [True, False])
def test_one_that_came_to_nothing_is_submitted_again(http: ComfyHttp, peer: ScriptedPeer, interrupted: bool) -> None:
    peer.script.fails, peer.script.ends = True, not interrupted
    submit(http)
    peer.stop("id")
    peer.script.ends = False
    submit(http)
    assert len(peer.submitted) == 2
    # The failure of before is not taken for the new one's.
    assert peer.history == {}


def test_one_that_was_taken_despite_an_error_is_not_submitted_again(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.after, peer.script.starts = 500, False
    submit(http)
    submit(http)
    assert len(peer.submitted) == 1


def test_an_error_that_took_nothing_is_an_error(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.statuses["prompt"] = 500
    with pytest.raises(BackendUnavailable, match="responds to prompt with status 500"):
        submit(http)
    peer.script.statuses.clear()
    peer.script.bodies["prompt"] = b"<html>"
    with pytest.raises(BackendBroken, match="prompt is not the JSON"):
        submit(http)


def test_a_version_that_names_prompts_itself_is_refused_and_left_with_nothing(
    http: ComfyHttp, peer: ScriptedPeer
) -> None:
    peer.script.ignores_ids, peer.script.ends = True, False
    with pytest.raises(BackendRefused, match=r"backend: this ComfyUI names prompts itself.*update it"):
        submit(http)
    assert peer.queue == {}


def refusal(peer: ScriptedPeer, http: ComfyHttp, body: Any) -> dict[str, str]:
    """The fields that a refusal of that body names."""
    peer.script.statuses["prompt"] = 400
    peer.script.bodies.clear()
    answered = peer.script.bodies["prompt"] = json.dumps(body).encode()
    assert answered
    with pytest.raises(BackendRefused) as error:
        submit(http)
    return error.value.fields


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (
            {
                "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
                "node_errors": {
                    "sampler": {
                        "errors": [
                            {
                                "type": "value_not_in_list",
                                "message": "Value not in list",
                                "details": "sampler_name: 'zzz' not in ['euler']",
                                "extra_info": {"input_name": "sampler_name"},
                            },
                            {"message": "Value too big", "details": "steps", "extra_info": {"input_name": "steps"}},
                        ],
                        "class_type": "KSampler",
                    },
                    "positive": {
                        "errors": [
                            {"message": "Odd text", "details": "a mug", "extra_info": {"input_name": "text"}},
                        ]
                    },
                    "loader": {"errors": [{"message": "One"}, {"message": "Two"}]},
                },
            },
            {
                "scheduler": "ComfyUI says: Value not in list (sampler_name: 'zzz' not in ['euler'])",
                "steps": "ComfyUI says: Value too big (steps)",
                "prompt": "ComfyUI says: Odd text",
                "model": "ComfyUI says: One (); Two ()",
            },
        ),
        (
            {"error": {"type": "invalid_prompt", "message": "Cannot execute because node X does not exist."}},
            {"backend": "ComfyUI says: Cannot execute because node X does not exist."},
        ),
        ({"error": "no prompt", "node_errors": []}, {"backend": "ComfyUI says: no prompt"}),
        ({}, {"backend": "ComfyUI says: it refused the graph"}),
    ],
)
def test_reasons_come_by_field(http: ComfyHttp, peer: ScriptedPeer, body: Any, fields: dict[str, str]) -> None:
    assert refusal(peer, http, body) == fields


@pytest.mark.parametrize("state", ["pending", "running", "done", "unknown"])
def test_a_prompt_is_withdrawn_from_wherever_it_is(http: ComfyHttp, peer: ScriptedPeer, state: str) -> None:
    peer.script.starts, peer.script.ends = state != "pending", state == "done"
    if state != "unknown":
        submit(http)
    after = withdraw(http, "id", QUICK, cancels_jobs=False).state
    assert after == {"running": PromptState.INTERRUPTED, "done": PromptState.DONE}.get(state, PromptState.UNKNOWN)
    assert peer.queue == {}
    # An older version stops whatever runs: it is not asked unless it is ours.
    assert ("POST interrupt" in peer.requests) == (state == "running")


def test_one_that_does_not_stop_is_left(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.ends, peer.script.ignores_stops = False, True
    submit(http)
    assert withdraw(http, "id", IMPATIENT, cancels_jobs=False).state is PromptState.RUNNING


@pytest.mark.parametrize("status", [200, 404, 405])
def test_the_newer_route_is_tried_first(http: ComfyHttp, peer: ScriptedPeer, status: int) -> None:
    peer.script.ends, peer.script.jobs_cancel = False, status
    submit(http)
    assert withdraw(http, "id", QUICK, cancels_jobs=True).state is PromptState.INTERRUPTED
    assert "POST jobs/id/cancel" in peer.requests
    assert ("POST interrupt" in peer.requests) == (status != 200)


def test_a_proxy_that_refuses_a_stop_is_named(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.script.statuses["queue"] = 400
    with pytest.raises(BackendUnavailable, match="refuses queue"):
        withdraw(http, "id", QUICK, cancels_jobs=False)
