"""Submitting a graph once, and taking it back.

ComfyUI takes the same id twice and draws it twice, so whoever submits asks first. The id follows from the drawing, the
picture and the caller's key: an attempt after a crash, a time-out or an error 500 finds what the one before submitted.
"""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from typing import Any

import msgspec

from flows.generation.comfyui.http import ComfyHttp, RefusedPrompt, decoded
from flows.generation.comfyui.limits import ComfyLimits
from flows.generation.comfyui.prompt_states import PromptStanding, PromptState, standing_of
from storage.errors import BackendBroken, BackendRefused, BackendUnavailable
from storage.records.generation.comfyui.comfy_graphs import Graph, field_of
from storage.records.generation.drawings import Drawing

LOG = logging.getLogger("darkroom.comfyui")
NAMESPACE = uuid.UUID("6f2a2c5e-0f4b-5c39-9d8e-0b6c6f1d7a11")
SHOWN_CHARACTERS = 200
STOP_POLL_SECONDS = 0.2
"""Between two looks at a prompt that was stopped: people wait for it."""
TEXT_INPUTS = frozenset({"text", "image"})
"""Inputs whose values are people's own: errors do not repeat them."""


class _Submitted(msgspec.Struct, frozen=True):
    prompt_id: str


class _InputFault(msgspec.Struct, frozen=True):
    message: str = ""
    details: str = ""
    extra_info: dict[str, Any] | None = None


class _NodeFaults(msgspec.Struct, frozen=True):
    errors: list[_InputFault] = []


class _PromptRefusal(msgspec.Struct, frozen=True):
    error: _InputFault | str = ""
    node_errors: dict[str, _NodeFaults] | list[Any] = {}


def client_id_of(key: str) -> str:
    """The name of the socket that messages about a key's pictures come to, whichever attempt submitted them."""
    return uuid.uuid5(NAMESPACE, f"client {key}").hex


def prompt_id_of(drawing: Drawing, index: int, key: str) -> str:
    """The id of one picture of a drawing; another for another key, such as a step's id."""
    return str(uuid.uuid5(NAMESPACE, f"{key} {drawing.fingerprint()} {index}"))


def submit_once(http: ComfyHttp, graph: Graph, prompt_id: str, client_id: str) -> None:
    """Submit a graph unless ComfyUI has it: waiting, running or done. One that failed or was interrupted is submitted
    again.

    Raises BackendRefused with ComfyUI's reasons by field, BackendUnavailable, BackendBroken.
    """
    standing = standing_of(http, prompt_id)
    if standing.state in (PromptState.PENDING, PromptState.RUNNING, PromptState.DONE):
        LOG.info("prompt_found prompt_id=%s state=%s", prompt_id, standing.state)
        return
    if standing.ended:
        # Else its old failure would be taken for the new one's.
        forget(http, prompt_id)
    try:
        answer = http.post("prompt", {"prompt": graph, "prompt_id": prompt_id, "client_id": client_id})
        given = decoded(answer, _Submitted, "prompt").prompt_id
    except RefusedPrompt as refusal:
        raise _refused(refusal) from refusal
    except (BackendUnavailable, BackendBroken):
        # It may have taken it all the same, and even be done.
        if standing_of(http, prompt_id).state is PromptState.UNKNOWN:
            raise
        LOG.warning("prompt_taken_despite_an_error prompt_id=%s", prompt_id)
        return
    if given != prompt_id:
        _drop(http, given)
        raise BackendRefused(
            {"backend": "this ComfyUI names prompts itself, so nothing could be drawn just once; update it"}
        )


def forget(http: ComfyHttp, prompt_id: str) -> None:
    """Take a prompt that ended out of the history, so that it can be submitted again."""
    _post(http, "history", {"delete": [prompt_id]})


def withdraw(http: ComfyHttp, prompt_id: str, limits: ComfyLimits, *, cancels_jobs: bool) -> PromptStanding:
    """Stop a prompt, or take it out of the queue; waits until it is gone, for `limits.cancel` seconds at most.

    cancels_jobs: the version may have a route that does both. Returns how it stands then. Raises BackendUnavailable,
    BackendBroken.
    """
    if cancels_jobs:
        # Versions that list jobs did not all have it from the start.
        with contextlib.suppress(BackendUnavailable, RefusedPrompt):
            http.post(f"jobs/{prompt_id}/cancel", {})
    _drop(http, prompt_id)
    until = time.monotonic() + limits.cancel
    while (standing := standing_of(http, prompt_id)).state in (PromptState.PENDING, PromptState.RUNNING):
        if time.monotonic() > until:
            LOG.warning("prompt_not_stopped prompt_id=%s", prompt_id)
            break
        time.sleep(min(limits.poll, STOP_POLL_SECONDS))
    return standing


def _drop(http: ComfyHttp, prompt_id: str) -> None:
    _post(http, "queue", {"delete": [prompt_id]})
    # An older version stops whatever runs, whichever prompt it is asked to stop.
    if standing_of(http, prompt_id).state is PromptState.RUNNING:
        _post(http, "interrupt", {"prompt_id": prompt_id})


def _post(http: ComfyHttp, path: str, body: dict[str, Any]) -> None:
    try:
        http.post(path, body)
    except RefusedPrompt as refusal:
        raise BackendUnavailable(f"ComfyUI refuses {path}. Update it, or check its proxy.") from refusal


def _refused(refusal: RefusedPrompt) -> BackendRefused:
    """ComfyUI's reasons, by the fields of a request that its nodes and inputs stand for."""
    told = decoded(refusal.body, _PromptRefusal, "prompt")
    fields: dict[str, str] = {}
    for node, faults in (told.node_errors if isinstance(told.node_errors, dict) else {}).items():
        for fault in faults.errors:
            name = str((fault.extra_info or {}).get("input_name", ""))
            text = fault.message if name in TEXT_INPUTS else f"{fault.message} ({fault.details})"
            field, reason = field_of(node, name), text[:SHOWN_CHARACTERS]
            fields[field] = f"{fields[field]}; {reason}" if field in fields else reason
    if not fields:
        message = told.error if isinstance(told.error, str) else told.error.message
        fields["backend"] = (message or "it refused the graph")[:SHOWN_CHARACTERS]
    return BackendRefused({field: f"ComfyUI says: {reason}" for field, reason in fields.items()})
