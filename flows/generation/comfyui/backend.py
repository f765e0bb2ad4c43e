"""The backend `comfyui`: a drawing as graphs, one a picture, on a ComfyUI somewhere in the network.

Nothing is drawn twice for one key: see prompts.py. Nothing is replaced: what the installation lacks is refused by name
before anything is submitted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from uuid import uuid4

import msgspec
from PIL import Image

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.address import ComfyAddress
from flows.generation.comfyui.events import EventSocket
from flows.generation.comfyui.following import PromptFollower
from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.installation import capabilities_of, version_of
from flows.generation.comfyui.limits import ComfyLimits
from flows.generation.comfyui.pictures import PictureGone, download, upload
from flows.generation.comfyui.prompt_states import PromptStanding, PromptState
from flows.generation.comfyui.prompts import client_id_of, forget, prompt_id_of, submit_once, withdraw
from flows.generation.drawn_pictures import DrawnPicture
from storage.errors import (
    BackendBroken,
    BackendRefused,
    BackendStalled,
    BackendUnavailable,
    InvalidRequest,
    JobLost,
    StoreUnavailable,
)
from storage.records.generation.comfyui.comfy_capabilities import ComfyCapabilities
from storage.records.generation.comfyui.comfy_graphs import SAVED, GraphParts, graph_of, steps_drawn
from storage.records.generation.comfyui.comfy_models import ComfyNames, loader_of
from storage.records.generation.comfyui.comfy_requirements import lacking_for, loader_for
from storage.records.generation.drawings import Drawing, Operation
from storage.records.generation.scheduler_names import comfy_names
from storage.records.generation.schedulers import SchedulerSettings

LOG = logging.getLogger("darkroom.comfyui")
SUBMITTED_AHEAD = 2
"""Pictures of one drawing that are at the backend at once: it draws one while the next waits, and nobody else has to
wait for sixty-four."""
SILENT = DrawingCallbacks()


class ComfyBackend:
    """One installation. Several threads use it at once; close it at the end.

    read_picture: the picture of a SHA-256, RGB or grey, upright.
    """

    def __init__(
        self,
        address: ComfyAddress,
        read_picture: Callable[[str], Image.Image],
        *,
        names: ComfyNames = ComfyNames(),  # noqa: B008 - frozen
        limits: ComfyLimits = ComfyLimits(),  # noqa: B008 - frozen
    ) -> None:
        self._http, self._limits = ComfyHttp(address, limits), limits
        self._names, self._read_picture = names, read_picture
        self._asked: tuple[ComfyCapabilities | None, float] = (None, float("-inf"))
        self._failure: Exception | None = None
        self._failed = float("-inf")
        self._asking = threading.Lock()

    def close(self) -> None:
        """Close its connections; what was submitted is drawn on."""
        self._http.close()

    def version(self) -> str:
        """ComfyUI's version: whether it is there. Raises BackendUnavailable, BackendBroken."""
        return version_of(self._http)

    def capabilities(self, *, fresh: bool = False) -> ComfyCapabilities:
        """What it can do, asked every `limits.capabilities` seconds by one thread, for which the others wait.

        Raises BackendUnavailable, BackendBroken.
        """
        called, (kept, at) = time.monotonic(), self._asked
        if kept is not None and not fresh and called - at <= self._limits.capabilities:
            return kept
        with self._asking:
            kept, at = self._asked
            # Another thread has asked meanwhile, for this one as well.
            if kept is not None and at > called:
                return kept
            if self._failure is not None and self._failed > called:
                raise self._failure
            try:
                found = capabilities_of(self._http)
            except (BackendUnavailable, BackendBroken) as error:
                self._failure, self._failed = error, time.monotonic()
                raise
            self._asked = found, time.monotonic()
            return found

    def lacking(self, drawing: Drawing) -> dict[str, str]:
        """What it lacks for a drawing, by field; empty if it can draw it. Raises BackendUnavailable, BackendBroken.

        A list that was kept is asked for again before anything is missed: files are copied there any time.
        """
        try:
            sampler = _sampler_of(drawing.scheduler)
        except InvalidRequest as refusal:
            return refusal.fields
        kept, _ = self._asked
        lacking = lacking_for(drawing, self.capabilities(), self._names, sampler)
        if lacking and self._asked[0] is kept:
            lacking = lacking_for(drawing, self.capabilities(fresh=True), self._names, sampler)
        return {field: "; ".join(reasons) for field, reasons in lacking.items()}

    def draw(
        self,
        drawing: Drawing,
        callbacks: DrawingCallbacks = SILENT,
        *,
        key: str = "",
        wanted: Sequence[int] | None = None,
    ) -> Generator[DrawnPicture]:
        """The wanted pictures of the drawing by their numbers, all of them by default, in that order.

        key: what the pictures belong to, such as a step's id: an attempt with the same key finds what an earlier one
        submitted, and its cancel stops nobody else's. Without it equal drawings are one.

        Raises BackendRefused before anything is submitted; BackendUnavailable, after which the same call goes on where
        it was; BackendBroken. Pictures that were submitted are taken back, except after BackendUnavailable and JobLost:
        then another attempt waits for them.
        """
        numbers = tuple(range(len(drawing.images)) if wanted is None else wanted)
        if not numbers:
            return
        if lacking := self.lacking(drawing):
            raise BackendRefused(lacking)
        parts = self._parts(drawing)
        # Else two that name no key would take the socket from each other.
        key = key or drawing.fingerprint()
        socket = EventSocket(self._http.address, client_id_of(key), self._limits)
        at_backend: deque[str] = deque()
        try:
            # Before the first picture is submitted: else its first previews are sent to nobody.
            socket.open()
            waiting = deque(numbers)
            for index in numbers:
                while waiting and len(at_backend) < SUBMITTED_AHEAD:
                    callbacks.check()
                    at_backend.append(self._submit(drawing, waiting.popleft(), parts, key))
                follower = PromptFollower(
                    *(self._http, socket, at_backend[0], self._limits, callbacks),
                    index=index,
                    steps=steps_drawn(drawing),
                )
                standing = follower.end()
                try:
                    image = self._picture(drawing, at_backend[0], standing)
                except PictureGone:
                    self._submit(drawing, index, parts, key, again=True)
                    image = self._picture(drawing, at_backend[0], follower.end())
                at_backend.popleft()
                yield DrawnPicture(number=index, image=image, seconds=standing.seconds)
        except BackendStalled:
            self._take_back(at_backend)
            raise
        except (StoreUnavailable, JobLost):
            raise
        except BaseException:
            self._take_back(at_backend)
            raise
        finally:
            socket.close()

    def _submit(self, drawing: Drawing, index: int, parts: GraphParts, key: str, *, again: bool = False) -> str:
        prompt_id, graph = prompt_id_of(drawing, index, key), graph_of(drawing, index, parts)
        if again:
            # ComfyUI would answer from its cache that the file is where it is not. An input that its node does not know
            # is ignored, but counts as a difference: the picture is saved once more, and not drawn.
            graph[SAVED]["inputs"]["saved_again"] = uuid4().hex
        submit_once(self._http, graph, prompt_id, client_id_of(key))
        return prompt_id

    def _picture(self, drawing: Drawing, prompt_id: str, standing: PromptStanding) -> Image.Image:
        """The picture of a prompt that ended. Raises BackendBroken; then the next attempt draws it again."""
        match standing.state:
            case PromptState.INTERRUPTED:
                raise BackendUnavailable("Somebody stopped a picture at ComfyUI. Try again.")
            case PromptState.FAILED:
                raise BackendBroken(
                    f"ComfyUI failed in its node {standing.failed_node or 'of an unknown name'} "
                    f"({standing.failed_kind or 'unknown error'}). Its log says more."
                )
            case _:
                pass
        try:
            return download(self._http, standing.files, (drawing.width, drawing.height))
        except BackendBroken:
            # Kept in the history, the broken one would be found for ever.
            with contextlib.suppress(BackendUnavailable, BackendBroken):
                forget(self._http, prompt_id)
            raise

    def _take_back(self, prompt_ids: deque[str]) -> None:
        """The last one first: a prompt that is stopped must not make room for the next."""
        cancels_jobs = self._asked[0] is not None and self._asked[0].lists_jobs
        for prompt_id in reversed(prompt_ids):
            # What ended this drawing is raised, not that a dead server cannot be asked to stop.
            with contextlib.suppress(BackendUnavailable, BackendBroken):
                standing = withdraw(self._http, prompt_id, self._limits, cancels_jobs=cancels_jobs)
                LOG.info("prompt_withdrawn prompt_id=%s state=%s", prompt_id, standing.state)

    def _parts(self, drawing: Drawing) -> GraphParts:
        loader = loader_for(drawing, self.capabilities(), self._names)
        if loader is None and drawing.operation is Operation.UPSCALE:
            loader = loader_of(self._names.model(drawing.model))
        if loader is None:
            raise BackendUnavailable("ComfyUI lost a model between two looks. Try again.")
        parts = GraphParts(
            loader=loader,
            sampler=_sampler_of(drawing.scheduler),
            adapters=tuple(self._names.adapter(adapter) for adapter in drawing.adapters),
        )
        if drawing.operation is Operation.TXT2IMG:
            return parts
        source = self._read_picture(drawing.source).convert("RGB")
        mask = self._mask(drawing, source.size) if drawing.operation is Operation.INPAINT else ""
        uploaded = upload(self._http, source)
        return msgspec.structs.replace(parts, source=uploaded, source_size=source.size, mask=mask)

    def _mask(self, drawing: Drawing, source_size: tuple[int, int]) -> str:
        """The mask in the drawing's size. Raises InvalidRequest if it is not as large as the source."""
        mask = self._read_picture(drawing.mask).convert("L")
        if mask.size != source_size:
            wrong, right = (" x ".join(map(str, size)) for size in (mask.size, source_size))
            raise InvalidRequest({"mask": f"has {wrong} pixels; give it the source's {right}"})
        size = (drawing.width, drawing.height)
        return upload(self._http, mask if mask.size == size else mask.resize(size, Image.Resampling.NEAREST))


def _sampler_of(settings: SchedulerSettings) -> tuple[str, str]:
    """ComfyUI's sampler_name and scheduler. Raises BackendRefused where it has none, InvalidRequest."""
    if (pair := comfy_names(settings)) is None:
        asked = f"'{settings.name}' with spacing '{settings.spacing}' and eta {settings.eta:g}"
        raise BackendRefused({"scheduler": f"ComfyUI has nothing that draws as {asked} does; ask for another"})
    return pair
