"""The state of what was submitted to a ComfyUI: its history joined with its queue.

The history is silent about what waits or is drawn, and the queue about what has ended, so both are asked. Never the
whole history: it holds ten thousand graphs.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import msgspec

from flows.generation.comfyui.http import ComfyHttp, decoded
from flows.generation.comfyui.limits import HISTORY_BYTES, QUEUE_BYTES
from storage.records.generation.comfyui.comfy_graphs import SAVED


class PromptState(StrEnum):
    """What ComfyUI knows of a prompt, its word for a graph that was submitted."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    INTERRUPTED = "interrupted"


class SavedFile(msgspec.Struct, frozen=True):
    """Where a picture is at the installation."""

    filename: str
    subfolder: str = ""
    type: str = "output"


class PromptStanding(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt's state; how many prompts are in front of one that waits; the pictures of one that is done, and how long
    that took; 0 where ComfyUI does not say.

    A failed one has the node and the kind of the error, without its text: that may quote a prompt.
    """

    state: PromptState
    ahead: int = 0
    files: tuple[SavedFile, ...] = ()
    seconds: float = 0.0
    failed_node: str = ""
    failed_kind: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is in the history."""
        return self.state in (PromptState.DONE, PromptState.FAILED, PromptState.INTERRUPTED)


class _Status(msgspec.Struct, frozen=True):
    status_str: str = ""
    messages: list[list[Any]] = []


class _Output(msgspec.Struct, frozen=True):
    images: list[SavedFile] = []


class _Ended(msgspec.Struct, frozen=True):
    outputs: dict[str, msgspec.Raw]
    status: _Status | None = None


class _Queue(msgspec.Struct, frozen=True):
    queue_running: list[list[Any]]
    queue_pending: list[list[Any]]


def standing_of(http: ComfyHttp, prompt_id: str) -> PromptStanding:
    """The state of a prompt. Raises BackendUnavailable, BackendBroken."""
    # Between the two looks it may end, and is in neither: so the history is asked again.
    for ask in (_from_history, _from_queue, _from_history):
        found = ask(http, prompt_id)
        if found is not None:
            return found
    return PromptStanding(state=PromptState.UNKNOWN)


def _from_history(http: ComfyHttp, prompt_id: str) -> PromptStanding | None:
    history = http.read(f"history/{prompt_id}", dict[str, _Ended], HISTORY_BYTES)
    ended = history.get(prompt_id)
    if ended is None:
        return None
    status = ended.status or _Status()
    # Old versions have no status; they keep no failed prompt either.
    if status.status_str != "error":
        raw = ended.outputs.get(SAVED)
        files = decoded(bytes(raw), _Output, "history").images if raw is not None else []
        return PromptStanding(state=PromptState.DONE, files=tuple(files), seconds=_seconds(status.messages))
    for message in status.messages:
        match message:
            case ["execution_interrupted", *_]:
                return PromptStanding(state=PromptState.INTERRUPTED)
            case ["execution_error", {"node_id": node, "exception_type": kind}, *_]:
                return PromptStanding(state=PromptState.FAILED, failed_node=str(node), failed_kind=str(kind))
            case _:
                continue
    return PromptStanding(state=PromptState.FAILED)


def _seconds(messages: Sequence[Sequence[Any]]) -> float:
    """From the messages' times, which are milliseconds of its clock."""
    times: dict[str, float] = {}
    for message in messages:
        match message:
            case [str(name), {"timestamp": int(time) | float(time)}, *_]:
                times[name] = time / 1000
            case _:
                continue
    if not {"execution_start", "execution_success"} <= times.keys():
        return 0.0
    return max(0.0, times["execution_success"] - times["execution_start"])


def _from_queue(http: ComfyHttp, prompt_id: str) -> PromptStanding | None:
    queue = http.read("queue", _Queue, QUEUE_BYTES)
    if _numbers(queue.queue_running, prompt_id):
        return PromptStanding(state=PromptState.RUNNING)
    mine = _numbers(queue.queue_pending, prompt_id)
    if not mine:
        return None
    # Pending prompts are listed as a heap, not in their order.
    ahead = sum(1 for item in queue.queue_pending if _number(item) < mine[0])
    return PromptStanding(state=PromptState.PENDING, ahead=ahead + len(queue.queue_running))


def _numbers(items: Sequence[list[Any]], prompt_id: str) -> list[float]:
    return sorted(_number(item) for item in items if len(item) > 1 and item[1] == prompt_id)


def _number(item: Sequence[Any]) -> float:
    return float(item[0]) if item and isinstance(item[0], int | float) else float("inf")
