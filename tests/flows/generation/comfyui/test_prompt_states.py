"""What became of a prompt: the history joined with the queue."""

from __future__ import annotations

from typing import Any

import pytest

from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.prompt_states import PromptStanding, PromptState, SavedFile, standing_of
from storage.errors import BackendBroken
from tests.flows.generation.comfyui.scripted_peer import ScriptedPeer

IMAGES = {"save": {"images": [{"filename": "a.png", "subfolder": "", "type": "temp"}]}}


def item(number: float, prompt_id: str) -> list[Any]:
    """A place in the queue."""
    return [number, prompt_id, {}, {}, []]


def test_places_in_the_queue_are_counted_by_their_numbers(http: ComfyHttp, peer: ScriptedPeer) -> None:
    # As a heap lists them; negative numbers are those that were put in front.
    peer.queue = {
        "running": item(1, "running"),
        "mine": item(5, "mine"),
        "late": item(7, "late"),
        "early": item(-2, "early"),
    }
    peer.running = ["running"]

    assert standing_of(http, "mine") == PromptStanding(state=PromptState.PENDING, ahead=2)
    assert standing_of(http, "early") == PromptStanding(state=PromptState.PENDING, ahead=1)
    assert standing_of(http, "running").state is PromptState.RUNNING
    assert standing_of(http, "none").state is PromptState.UNKNOWN


def test_the_whole_history_is_never_asked_for(http: ComfyHttp, peer: ScriptedPeer) -> None:
    standing_of(http, "mine")
    assert peer.requests == ["GET history/mine", "GET queue", "GET history/mine"]


def test_one_that_ends_between_the_two_looks_is_found(
    http: ComfyHttp, peer: ScriptedPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = http.read

    def end_before_the_queue(path: str, *args: Any, **query: str) -> Any:
        if path == "queue":
            peer.history["mine"] = {"outputs": IMAGES, "status": {"status_str": "success"}}
        return read(path, *args, **query)

    monkeypatch.setattr(http, "read", end_before_the_queue)
    assert standing_of(http, "mine").state is PromptState.DONE


@pytest.mark.parametrize(
    ("entry", "standing"),
    [
        (
            {"outputs": IMAGES, "status": {"status_str": "success", "messages": [["execution_start", {}]]}},
            PromptStanding(state=PromptState.DONE, files=(SavedFile("a.png", "", "temp"),)),
        ),
        ({"outputs": IMAGES}, PromptStanding(state=PromptState.DONE, files=(SavedFile("a.png", "", "temp"),))),
        (
            {"outputs": IMAGES, "status": None},
            PromptStanding(state=PromptState.DONE, files=(SavedFile("a.png", "", "temp"),)),
        ),
        # Times are milliseconds; a clock that is set back in between makes none negative.
        *(
            (
                {
                    "outputs": IMAGES,
                    "status": {
                        "status_str": "success",
                        "messages": [
                            ["execution_start", {"timestamp": 1_500}],
                            ["execution_success", {"timestamp": end}],
                        ],
                    },
                },
                PromptStanding(state=PromptState.DONE, files=(SavedFile("a.png", "", "temp"),), seconds=seconds),
            )
            for end, seconds in ((4_000, 2.5), (1_000, 0.0), (None, 0.0))
        ),
        # Pictures of another node are none of ours.
        (
            {"outputs": {"other": IMAGES["save"]}, "status": {"status_str": "success"}},
            PromptStanding(state=PromptState.DONE),
        ),
        ({"outputs": {"save": {}}, "status": {"status_str": "success"}}, PromptStanding(state=PromptState.DONE)),
        (
            {"outputs": {}, "status": {"status_str": "error", "messages": [["execution_interrupted", {}]]}},
            PromptStanding(state=PromptState.INTERRUPTED),
        ),
        (
            {
                "outputs": {},
                "status": {
                    "status_str": "error",
                    "messages": [
                        ["execution_start", {}],
                        [],
                        ["execution_error", {"node_id": "sampler", "exception_type": "ValueError", "traceback": []}],
                    ],
                },
            },
            PromptStanding(state=PromptState.FAILED, failed_node="sampler", failed_kind="ValueError"),
        ),
        ({"outputs": {}, "status": {"status_str": "error"}}, PromptStanding(state=PromptState.FAILED)),
    ],
)
def test_an_entry_of_the_history_says_how_it_ended(
    http: ComfyHttp, peer: ScriptedPeer, entry: dict[str, Any], standing: PromptStanding
) -> None:
    peer.history["mine"] = {"prompt": [], **entry}
    assert standing_of(http, "mine") == standing
    assert standing.ended


@pytest.mark.parametrize(
    "entry", [[], {"outputs": []}, {"outputs": {"save": {"images": [{}]}}}, {"outputs": {"save": {"images": "a.png"}}}]
)
def test_an_entry_that_is_none_is_broken(http: ComfyHttp, peer: ScriptedPeer, entry: Any) -> None:
    peer.history["mine"] = entry
    with pytest.raises(BackendBroken, match=r"history.* is not the JSON"):
        standing_of(http, "mine")


def test_strange_places_in_the_queue_are_nobodys(http: ComfyHttp, peer: ScriptedPeer) -> None:
    peer.others = [[], ["x"], ["last", "mine"], [3, "other"]]
    assert standing_of(http, "mine") == PromptStanding(state=PromptState.PENDING, ahead=1)
