"""The socket shows progress and previews, and whatever else it does costs no picture."""

from __future__ import annotations

import json
import struct
import time
from dataclasses import replace
from typing import Any

import httpx
import pytest

from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.events import EventSocket, PromptEnded, PromptPreview, SamplerStep
from flows.generation.comfyui.limits import MESSAGE_BYTES
from tests.conftest import free_port
from tests.flows.generation.comfyui.conftest import QUICK, SOON
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer

JPEG, PNG = b"\xff\xd8\xff one", b"\x89PNG\r\n\x1a\n another"


def text(kind: str, **data: Any) -> str:
    """A text message."""
    return json.dumps({"type": kind, "data": data})


def events_of(peer: ScriptedPeer, *messages: str | bytes) -> list[Any]:
    """What the socket makes of messages."""
    socket = EventSocket(ComfyAddress(url=peer.url), "client", QUICK)
    socket.open()
    peer.script.messages = [*messages, text("execution_success", prompt_id="last")]
    peer.script.ends = False
    draw(peer)
    found: list[Any] = []
    for event in socket.wait(SOON):
        if event == PromptEnded("last"):
            break
        found.append(event)
    socket.close()
    return found


def draw(peer: ScriptedPeer) -> None:
    """Have the peer send its messages."""
    httpx.post(f"{peer.url}/api/prompt", json={"prompt": {}, "prompt_id": "p", "client_id": "client"}, trust_env=False)


def test_steps_of_the_sampler_and_endings_are_read(peer: ScriptedPeer) -> None:
    assert events_of(
        peer,
        text("status", status={"exec_info": {"queue_remaining": 1}}),
        text("progress", node="sampler", value=1, max=4, prompt_id="p"),
        text("progress", node="decoded", value=1, max=4, prompt_id="p"),
        text("executing", node="sampler", prompt_id="p"),
        text("executing", node=None, prompt_id="p"),
        text("execution_error", prompt_id="q", exception_message="a mug"),
        text("execution_interrupted", prompt_id="r"),
    ) == [SamplerStep("p", 1, 4), PromptEnded("p"), PromptEnded("q"), PromptEnded("r")]


def test_previews_are_read_in_both_forms(peer: ScriptedPeer) -> None:
    metadata = json.dumps({"prompt_id": "q", "node_id": "sampler"}).encode()
    assert events_of(
        peer,
        text("executing", node="sampler", prompt_id="p"),
        struct.pack(">II", 1, 1) + JPEG,
        struct.pack(">II", 4, len(metadata)) + metadata + PNG,
    ) == [PromptPreview("p", JPEG), PromptPreview("q", PNG)]


@pytest.mark.parametrize(
    "message",
    [
        "no json",
        "[" * 50_000,
        "[]",
        '{"type": 5}',
        text("progress", node="sampler", value="1", max=4, prompt_id="p"),
        text("progress", node="sampler", value=1, prompt_id="p"),
        text("progress", node="sampler", value=1, max=4, prompt_id=5),
        b"",
        b"\x00\x00",
        struct.pack(">II", 4, 2**31) + b"{}",
        struct.pack(">II", 4, 2) + b"[]" + b"x",
        struct.pack(">II", 4, 2) + b"{]" + b"x",
        struct.pack(">II", 3, 0) + b"text",
        struct.pack(">II", 99, 0),
        struct.pack(">II", 1, 1) + b"<svg onload='x'>",
    ],
)
def test_what_nobody_understands_is_nothing(peer: ScriptedPeer, message: str | bytes) -> None:
    assert events_of(peer, message) == []


def test_a_socket_that_does_not_open_takes_the_time_that_was_given() -> None:
    socket = EventSocket(ComfyAddress(url=f"http://127.0.0.1:{free_port()}"), "client", QUICK)
    began = time.monotonic()
    assert list(socket.wait(0.1)) == []
    assert 0.1 <= time.monotonic() - began < SOON
    socket.close()


def test_a_socket_is_opened_again_but_not_at_once(peer: ScriptedPeer) -> None:
    peer.script.refuses_socket = True
    socket = EventSocket(ComfyAddress(url=peer.url), "client", replace(QUICK, reconnect=3600.0))
    for _ in range(3):
        socket.open()
    assert peer.requests.count("GET /ws") == 1
    again = EventSocket(ComfyAddress(url=peer.url), "client", replace(QUICK, reconnect=0.0))
    again.open()
    peer.script.refuses_socket = False
    assert list(again.wait(0.05)) == []
    assert peer.opened == 1
    again.close()


def test_an_endless_message_closes_the_socket_alone(peer: ScriptedPeer) -> None:
    assert events_of(peer, struct.pack(">II", 1, 1) + JPEG + bytes(MESSAGE_BYTES)) == []
