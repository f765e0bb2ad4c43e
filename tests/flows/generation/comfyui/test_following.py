"""A prompt is followed to its end whatever the socket says, and no longer than the limits say."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.backend import ComfyBackend
from flows.generation.comfyui.prompts import prompt_id_of
from storage.errors import BackendBroken, BackendStalled, BackendUnavailable, CancellationRequested
from tests.flows.generation.comfyui.conftest import (
    IMPATIENT,
    PEERS_MODEL,
    QUICK,
    SOON,
    drawing,
    picture_named,
    pictures,
)
from tests.flows.generation.comfyui.scripted_peer import PREVIEW, ScriptedPeer


def fails(backend: ComfyBackend, kind: type[Exception], match: str, **callbacks: Any) -> float:
    """How long a drawing takes to end by an error of that name."""
    backend.capabilities()
    began = time.monotonic()
    with pytest.raises(kind, match=match):
        list(backend.draw(drawing(), DrawingCallbacks(**callbacks)))
    return time.monotonic() - began


def test_steps_and_previews_are_passed_on(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.steps, peer.script.ends = [(1, 4), (2, 4), (4, 4)], False
    seen = list[Any]()

    def step(*done: int) -> None:
        seen.append(done)
        if done[1] == 4:
            peer.end(next(iter(peer.queue)))

    callbacks = DrawingCallbacks(step=step, preview=lambda *one: seen.append(one))
    assert [one.number for one in backend.draw(drawing(), callbacks)] == [0]
    assert seen == [(0, 1, 4), (0, PREVIEW), (0, 2, 4), (0, PREVIEW), (0, 4, 4), (0, PREVIEW)]


def test_progress_that_lies_is_believed_only_as_far_as_it_can_be(impatient: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.steps = [(3, 4), (1, 4), (3, 4), (900, 4), (-1, 4), (4, 4), (4, 900), ("5", 4)]
    peer.script.ends = False
    seen = list[Any]()

    assert fails(impatient, BackendStalled, "did nothing for", step=lambda *done: seen.append(done)) < SOON
    assert seen == [(0, 3, 4), (0, 4, 4)]


def test_one_that_says_it_is_done_and_is_not_is_waited_for_no_longer(
    impatient: ComfyBackend, peer: ScriptedPeer
) -> None:
    peer.script.ends = False
    ended = {
        "type": "executing",
        "data": {"node": None, "prompt_id": prompt_id_of(drawing(), 0, drawing().fingerprint())},
    }
    peer.script.messages = [json.dumps(ended)]

    assert fails(impatient, BackendStalled, "restart it if it hangs") < SOON
    # What was submitted was taken back.
    assert peer.queue == {}


def test_one_that_does_not_stop_either_is_left_in_time(impatient: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.ends, peer.script.ignores_stops = False, True

    assert fails(impatient, BackendStalled, "did nothing for") < SOON


def test_a_queue_that_does_not_move_is_left_later(impatient: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.starts = False
    peer.others = [[number, f"other-{number}", {}, {}, []] for number in (0, 0.5, 9)]
    ahead = list[int]()

    assert IMPATIENT.queue < fails(impatient, BackendStalled, "did nothing for", queued=ahead.append) < SOON
    assert ahead == [2]


def test_one_picture_has_its_time_however_it_goes_on(peer: ScriptedPeer) -> None:
    peer.script.ends = False
    backend = ComfyBackend(
        ComfyAddress(url=peer.url),
        picture_named,
        names=PEERS_MODEL,
        limits=replace(QUICK, picture=0.3, cancel=0.3),
    )
    assert fails(backend, BackendStalled, "Ask for fewer steps") < SOON
    backend.close()


@pytest.mark.parametrize("closes", [True, False])
def test_a_socket_that_closes_or_never_opens_costs_no_picture(
    backend: ComfyBackend, peer: ScriptedPeer, closes: bool
) -> None:
    peer.script.refuses_socket = not closes
    peer.script.steps, peer.script.closes_after = [(1, 4), (2, 4)], 1
    peer.script.ends = False
    ending = threading.Timer(0.2, lambda: peer.end(next(iter(peer.queue))))
    ending.start()

    assert [one.number for one in backend.draw(drawing())] == [0]
    ending.join()
    assert peer.opened == (2 if closes else 0)


def test_a_server_that_was_restarted_is_named(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.forgets, peer.script.ends = True, False

    assert fails(backend, BackendUnavailable, "knows nothing of a picture that it had taken") < SOON


def test_a_short_failure_is_waited_out(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.ends = False
    calls = list[int]()

    def check() -> None:
        calls.append(1)
        # The first is before the submission.
        if len(calls) == 3:
            peer.script.statuses["history"] = 502
        if len(calls) == 5:
            peer.script.statuses.clear()
            peer.end(next(iter(peer.queue)))

    assert [one.number for one in backend.draw(drawing(), DrawingCallbacks(check=check))] == [0]


def test_a_long_failure_is_not_waited_out(impatient: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.ends = False
    calls = list[int]()

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            peer.script.statuses["history"] = 502

    assert fails(impatient, BackendUnavailable, "status 502", check=check) < SOON


def test_garbage_in_the_history_is_broken_at_once(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.ends = False
    calls = list[int]()

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            peer.script.bodies["history"] = b"<html>"

    assert fails(backend, BackendBroken, "history/.* is not the JSON", check=check) < SOON


@pytest.mark.parametrize("jobs_cancel", [None, 404, 200])
def test_a_cancel_takes_back_what_waits_and_what_is_drawn(
    backend: ComfyBackend, peer: ScriptedPeer, jobs_cancel: int | None
) -> None:
    peer.script.jobs_cancel = jobs_cancel
    peer.script.ends = False
    calls = list[int]()

    def check() -> None:
        calls.append(1)
        if len(calls) == 4:
            raise CancellationRequested("The owner asked to stop.")

    with pytest.raises(CancellationRequested):
        list(backend.draw(drawing(images=pictures(1, 2, 3)), DrawingCallbacks(check=check)))
    assert (len(peer.submitted), peer.queue) == (2, {})
    assert [one for one in peer.requests if one.endswith("/cancel")] != [] or jobs_cancel is None
    # Cancelled, not failed: asked for again, it is drawn.
    peer.script.ends = True
    assert [one.number for one in backend.draw(drawing(images=pictures(1, 2, 3)))] == [0, 1, 2]


def test_one_that_somebody_else_stopped_is_drawn_by_the_next_attempt(backend: ComfyBackend, peer: ScriptedPeer) -> None:
    peer.script.ends = False
    calls = list[int]()

    def check() -> None:
        calls.append(1)
        if len(calls) == 3:
            peer.stop(str(peer.submitted[0]["prompt_id"]))

    assert fails(backend, BackendUnavailable, "Somebody stopped a picture", check=check) < SOON
    peer.script.ends = True
    assert [one.number for one in backend.draw(drawing())] == [0]
