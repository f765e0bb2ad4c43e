"""Following a prompt to its end: the history is polled, the socket says when to look and shows progress meanwhile.

Progress is believed only as far as it goes forward, and never as an end: a server that reports steps for ever, or none,
is left after the same time.
"""

from __future__ import annotations

import time

from flows.generation.callbacks import DrawingCallbacks
from flows.generation.comfyui.events import Event, EventSocket, PromptEnded, PromptPreview, SamplerStep
from flows.generation.comfyui.http import ComfyHttp
from flows.generation.comfyui.limits import ComfyLimits
from flows.generation.comfyui.prompt_states import PromptStanding, PromptState, standing_of
from storage.errors import BackendStalled, BackendUnavailable


class PromptFollower:
    """One prompt: picture `index` of a drawing that takes `steps` steps."""

    def __init__(
        self,
        http: ComfyHttp,
        socket: EventSocket,
        prompt_id: str,
        limits: ComfyLimits,
        callbacks: DrawingCallbacks,
        *,
        index: int,
        steps: int,
    ) -> None:
        self._http, self._socket, self._prompt_id = http, socket, prompt_id
        self._limits, self._callbacks = limits, callbacks
        self._index, self._steps = index, steps
        self._standing = PromptStanding(state=PromptState.UNKNOWN)
        self._done = 0
        self._moved = self._responded = time.monotonic()
        self._began: float | None = None

    def end(self) -> PromptStanding:
        """How the prompt ended, once it has.

        Raises BackendUnavailable when the server does not respond for `limits.unreachable` seconds or knows nothing of
        the prompt, BackendStalled when nothing moves for longer than the limits say, and what the callbacks raise.
        """
        while True:
            self._callbacks.check()
            standing = self._look()
            if standing is not None and standing.ended:
                return standing
            self._check_time()
            for event in self._socket.wait(self._limits.poll):
                if self._hear(event):
                    break

    def _look(self) -> PromptStanding | None:
        """How it stands; None if the server does not respond at the moment."""
        try:
            standing = standing_of(self._http, self._prompt_id)
        except BackendUnavailable:
            if time.monotonic() - self._responded > self._limits.unreachable:
                raise
            return None
        self._responded = time.monotonic()
        if standing.state is PromptState.UNKNOWN:
            raise BackendUnavailable(
                "ComfyUI knows nothing of a picture that it had taken: it was restarted, or its queue was cleared. "
                "Try again."
            )
        if standing != self._standing:
            self._moved = time.monotonic()
            if standing.state is PromptState.PENDING:
                self._callbacks.queued(standing.ahead)
            elif standing.state is PromptState.RUNNING:
                self._began = self._moved
        self._standing = standing
        return standing

    def _check_time(self) -> None:
        now, limits = time.monotonic(), self._limits
        drawn = self._standing.state is PromptState.RUNNING
        if now - self._moved > (limits.stall if drawn else limits.queue):
            seconds = now - self._moved
            raise BackendStalled(
                f"ComfyUI did nothing for {seconds:.0f} s. Look at its log, and restart it if it hangs."
            )
        if self._began is not None and now - self._began > limits.picture:
            raise BackendStalled(
                f"ComfyUI drew one picture for {limits.picture:.0f} s. Ask for fewer steps or a smaller size."
            )

    def _hear(self, event: Event) -> bool:
        """Pass an event on; returns whether it says that the prompt has ended."""
        if event.prompt_id != self._prompt_id:
            return False
        match event:
            case PromptEnded():
                return True
            case PromptPreview(content=content):
                self._callbacks.preview(self._index, content)
            case SamplerStep(done=done):
                if self._done < done <= self._steps:
                    self._done, self._moved = done, time.monotonic()
                    self._callbacks.step(self._index, done, self._steps)
        return False
