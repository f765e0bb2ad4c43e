"""The engine: pictures of many requests drawn on one device, by the oldest request first and up to eight in one call.

One thread draws. It takes the oldest picture whose model is in memory and fills the call with others that fit: the same
model, adapters and size. They join and leave at any step. While the model of an older request is being loaded, younger
ones that have theirs go on; where it finds no room, nothing new is begun, so that those end and their models can go.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable

import torch

from flows.diffusion.batches import images_at_a_time
from flows.diffusion.memory import return_freed
from flows.diffusion.trajectories import ALONE, TOGETHER, advance
from flows.generation.engine.finishing import Finisher
from flows.generation.engine.messages import (
    DrawingEnded,
    DrawingFailed,
    DrawRequest,
    Message,
    PictureDrawn,
    PictureStarted,
    PreviewDrawn,
    StepDone,
)
from flows.generation.engine.news import News
from flows.generation.engine.preparation import OpenPicture, group_of, trajectory_of
from flows.generation.engine.resident_models import ModelSource, ResidentModel, ResidentModels, key_of
from flows.generation.engine.tickets import PictureInWork, Ticket
from flows.jobs.failures import named_failure, says_out_of_memory
from flows.runs.liveness import advanced
from storage.errors import DarkroomError, JobStalled
from storage.records.generation.drawings import Operation

log = logging.getLogger("darkroom.engine")

WORTH_TOGETHER = 3
"""So many pictures are drawn in a call for eight sooner than one by one: on a CPU it takes 2.2 times as long as a call
for one, on a GPU less."""
PREVIEW_SECONDS = 0.5
IDLE_LOOK_SECONDS = 5.0


class Engine:
    """Draws what is submitted, in the thread that calls `run`, until `stop`."""

    def __init__(
        self,
        files: ModelSource,
        open_picture: OpenPicture,
        device: torch.device,
        budget: int,
        idle_seconds: float = 300.0,
    ) -> None:
        self._news = News()
        self.models = ResidentModels(files, device, budget, self._news)
        self._files, self._open_picture, self._device = files, open_picture, device
        self._idle_seconds = idle_seconds
        self._pictures: list[PictureInWork] = []
        self._numbers = itertools.count()
        self._alone_only: set[tuple[object, ...]] = set()
        self._finisher = Finisher(open_picture)
        self._stopped = False
        self.calls = 0

    def submit(self, request: DrawRequest, send: Callable[[Message], None]) -> Ticket:
        """Draw the wanted pictures of a request; what happens is sent."""
        # Made larger without a model: nobody waits until one is loaded.
        key = "" if request.drawing.operation is Operation.UPSCALE else key_of(request.drawing.model)
        with self._news.told():
            ticket = Ticket(request, send, next(self._numbers), len(request.wanted))
            self._pictures += [PictureInWork(ticket, number, key) for number in request.wanted]
            self._pictures.sort(key=lambda one: one.ticket.order)
        if not request.wanted:
            send(DrawingEnded())
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Draw no more of a request; what was sent stays so."""
        with self._news.told():
            ticket.cancelled = True
            self._pictures = [one for one in self._pictures if one.ticket is not ticket]

    def waiting(self) -> int:
        """How many pictures are waiting or in work."""
        with self._news.lock:
            return len(self._pictures)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many pictures of other requests go before a request's."""
        with self._news.lock:
            return sum(one.ticket.order < ticket.order for one in self._pictures)

    def rest(self) -> int:
        """Forget the models that nobody draws with, whose memory somebody else needs; returns how many."""
        return self.models.drop_idle(0.0, {one.key for one in self._in_order()})

    def stop(self) -> None:
        """Let `run` return after the call that it is in."""
        with self._news.told():
            self._stopped = True

    def run(self) -> None:
        """Draw until `stop`. Call it from one thread."""
        with torch.no_grad():
            while not self._stopped:
                seen = self._news.count
                batch = self._next_batch()
                if batch:
                    self._draw(batch)
                    continue
                advanced()
                if not self._news.wait(seen, IDLE_LOOK_SECONDS) and not self._pictures:
                    self.models.drop_idle(self._idle_seconds)

    def _next_batch(self) -> list[PictureInWork]:
        """The oldest picture that can go on, and what fits beside it; their trajectories have begun."""
        pictures = self._in_order()
        last = self._ask_for_models(pictures)
        going = [one for place, one in enumerate(pictures) if one.trajectory is not None or place <= last]
        for picture in going:
            # A sibling may have ended its request just now.
            if picture.ticket.over:
                continue
            if not picture.key:
                return [picture]
            model = self._model_of(picture)
            if model is not None and self._begun(picture, model):
                return self._filled(picture, model, going)
        return []

    def _ask_for_models(self, pictures: list[PictureInWork]) -> int:
        """Have the first model loaded that is not here; returns the place behind which nothing new is begun.

        Where there is no room for it, what is in work ends first, and its model can go.
        """
        busy = {one.key for one in pictures if one.trajectory is not None}
        self.models.shrink({*busy, *(one.key for one in pictures[:1])})
        for place, picture in enumerate(pictures):
            if picture.key and self._model_of(picture) is None:
                return len(pictures) if self.models.want(picture.drawing.model, busy) else place
            busy.add(picture.key)
        return len(pictures)

    def _in_order(self) -> list[PictureInWork]:
        with self._news.lock:
            return list(self._pictures)

    def _model_of(self, picture: PictureInWork) -> ResidentModel | None:
        try:
            return self.models.find(picture.drawing.model)
        except Exception as error:  # noqa: BLE001 - named and sent to whoever asked for the model
            self._fail([one for one in self._in_order() if one.key == picture.key], error)
            return None

    def _begun(self, picture: PictureInWork, model: ResidentModel) -> bool:
        """Whether a picture's trajectory is there, made if it is not; one that cannot begin ends its request."""
        if picture.trajectory is not None:
            return True
        try:
            model.put_beside(picture.drawing.adapters, self._files)
            model.switch(picture.drawing.adapters)
            picture.trajectory = trajectory_of(model, picture.drawing, picture.number, self._open_picture)
        except Exception as error:  # noqa: BLE001 - named and sent to whoever asked for the picture
            self._fail([picture], error)
            return False
        picture.group = group_of(picture.drawing, picture.key, picture.trajectory)
        picture.began = time.monotonic()
        return True

    def _filled(self, head: PictureInWork, model: ResidentModel, going: list[PictureInWork]) -> list[PictureInWork]:
        if head.shape == ALONE:
            return [head]
        batch = [head]
        for other in going:
            if len(batch) >= TOGETHER:
                break
            if other is head or other.ticket.over or other.key != head.key:
                continue
            if ALONE in (other.shape, other.fixed_shape):
                continue
            if other.drawing.adapters != head.drawing.adapters or not self._begun(other, model):
                continue
            if other.group == head.group:
                batch.append(other)
        if not head.shape:
            head.shape = head.fixed_shape or self._shape_for(head, model, len(batch))
            self._started(head)
        if head.shape == ALONE:
            return [head]
        for other in batch[1:]:
            if not other.shape:
                other.shape = TOGETHER
                self._started(other)
        return batch

    def _shape_for(self, head: PictureInWork, model: ResidentModel, count: int) -> int:
        if count < WORTH_TOGETHER or head.group in self._alone_only or head.trajectory is None:
            return ALONE
        latents = head.trajectory.latents.expand(TOGETHER, -1, -1, -1)
        fitting = images_at_a_time(model.components, latents, guided=head.trajectory.guidance.needed)
        return TOGETHER if fitting >= TOGETHER else ALONE

    def _started(self, picture: PictureInWork) -> None:
        picture.ticket.send(PictureStarted(number=picture.number, shape=picture.shape))

    def _draw(self, batch: list[PictureInWork]) -> None:
        head, began = batch[0], time.monotonic()
        model = self.models.find(head.drawing.model) if head.key else None
        trajectories = [one.trajectory for one in batch if one.trajectory is not None]
        try:
            if model is not None:
                model.switch(head.drawing.adapters)
                advance(model.family, model.components, trajectories, head.shape)
        # Sent by the watchdog: whatever hung here may hang again, in a process that starts afresh it may not.
        except JobStalled as error:
            self._fail(batch, error)
            raise
        except Exception as error:  # noqa: BLE001 - named and sent to whoever asked for the pictures
            self._after_failure(batch, error)
            return
        self.calls += 1
        advanced()
        took = (time.monotonic() - began) / len(batch)
        for picture in batch:
            picture.busy_seconds += took
            # Each by itself: what is wrong with one of them, its source say, ends no other.
            try:
                self._report(picture, model)
            except Exception as error:  # noqa: BLE001 - as above
                self._fail([picture], error)

    def _report(self, picture: PictureInWork, model: ResidentModel | None) -> None:
        trajectory, ticket = picture.trajectory, picture.ticket
        if ticket.over:
            return
        if trajectory is not None and model is not None:
            ticket.send(StepDone(number=picture.number, step=trajectory.done, steps=trajectory.total))
            now = time.monotonic()
            if not trajectory.ended:
                if ticket.request.previews and now - picture.previewed >= PREVIEW_SECONDS:
                    picture.previewed = now
                    ticket.send(PreviewDrawn(number=picture.number, jpeg=self._finisher.preview(model, trajectory)))
                return
        self._finish(picture, model)

    def _finish(self, picture: PictureInWork, model: ResidentModel | None) -> None:
        began, ticket = time.monotonic(), picture.ticket
        image = self._finisher.finished(model, picture.drawing, picture.trajectory)
        now = time.monotonic()
        drawn = PictureDrawn(
            number=picture.number,
            width=image.width,
            height=image.height,
            pixels=image.tobytes(),
            shape=picture.shape or ALONE,
            seconds=now - (picture.began or began),
            busy_seconds=picture.busy_seconds + now - began,
        )
        with self._news.lock:
            self._pictures = [one for one in self._pictures if one is not picture]
            ticket.left -= 1
            ticket.ended = not ticket.left
        ticket.send(drawn)
        if ticket.ended:
            ticket.send(DrawingEnded())

    def _after_failure(self, batch: list[PictureInWork], error: Exception) -> None:
        if batch[0].shape == TOGETHER and says_out_of_memory(error):
            log.warning("no memory for %d pictures in one call: drawing them alone", TOGETHER)
            self._alone_only.add(batch[0].group)
            for picture in batch:
                picture.trajectory, picture.shape = None, 0
        else:
            self._fail(batch, error)
        return_freed(self._device)

    def _fail(self, pictures: list[PictureInWork], error: Exception) -> None:
        """End the requests of these pictures with a reason."""
        log.error("a drawing failed: %s", type(error).__name__, exc_info=error)
        named = error if isinstance(error, DarkroomError) else named_failure(error, "draw")
        tickets = list(dict.fromkeys(one.ticket for one in pictures))
        with self._news.lock:
            self._pictures = [one for one in self._pictures if one.ticket not in tickets]
        for ticket in tickets:
            if ticket.over:
                continue
            ticket.ended = True
            ticket.send(DrawingFailed(code=named.code, reason=str(named)))
