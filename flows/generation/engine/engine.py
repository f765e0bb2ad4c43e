"""The engine: pictures of many requests drawn on one device, by the oldest request first and up to eight in one call.

One thread draws. It takes the oldest picture whose model is in memory and fills the call with others that fit: the same
model, adapters and size. They join and leave at any step. While the model of an older request is being loaded, younger
ones that have theirs go on; where it finds no room, nothing new is begun, so that those end and their models can go.

What fails for one picture ends its request and no other. What says that the device itself is lost, or that something
hangs, ends the engine: a new process may find it well, and requests go there again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

import torch
from cachetools import TTLCache

from flows.diffusion.batches import images_at_a_time
from flows.diffusion.memory import return_freed
from flows.diffusion.trajectories import ALONE, TOGETHER, predict_together
from flows.generation.engine.failures import DeviceLost, failure_of, is_lost
from flows.generation.engine.finishing import Finisher
from flows.generation.engine.messages import DrawingEnded, DrawingFailed, DrawRequest, Message
from flows.generation.engine.news import News
from flows.generation.engine.picture_reports import PictureReports
from flows.generation.engine.preparation import OpenPicture, group_of, trajectory_of
from flows.generation.engine.resident_models import ModelSource, ResidentModels
from flows.generation.engine.tickets import Line, PictureInWork, Ticket
from flows.jobs.failures import says_out_of_memory
from flows.runs.liveness import advanced
from storage.errors import JobStalled

log = logging.getLogger("darkroom.engine")

WORTH_TOGETHER = 3
"""So many pictures are drawn in a call for eight sooner than one by one: on a CPU it takes 2.2 times as long as a call
for one, on a GPU less."""
IDLE_LOOK_SECONDS = 5.0
ALONE_SECONDS = 600.0
"""So long pictures of a kind are drawn alone after a call for eight has found no memory."""


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
        self._line = Line(self._news)
        self.models = ResidentModels(files, device, budget, self._news)
        self._files, self._open_picture, self._device = files, open_picture, device
        self._idle_seconds = idle_seconds
        self._alone_only: TTLCache[tuple[object, ...], bool] = TTLCache(256, ALONE_SECONDS)
        self._reports = PictureReports(self._line, Finisher(open_picture))
        self._stopped = False
        self.calls = 0

    def submit(self, request: DrawRequest, send: Callable[[Message], None]) -> Ticket:
        """Draw the wanted pictures of a request; what happens is sent."""
        ticket = self._line.add(request, send)
        if not request.wanted:
            send(DrawingEnded())
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Draw no more of a request; what was sent stays so."""
        ticket.cancelled = True
        self._line.remove([ticket])

    def waiting(self) -> int:
        """How many pictures are waiting or in work."""
        return len(self._line)

    def ahead_of(self, ticket: Ticket) -> int:
        """How many pictures of other requests go before a request's."""
        return self._line.ahead_of(ticket)

    def rest(self) -> int:
        """Forget the models that nobody draws with, whose memory somebody else needs; returns how many."""
        with self._news.lock:
            return self.models.drop_idle(0.0, {one.key for one in self._line.pictures()})

    def wake(self) -> None:
        """Look again for what can go on: a reader has read."""
        with self._news.told():
            pass

    def stop(self) -> None:
        """Let `run` return after the call that it is in."""
        with self._news.told():
            self._stopped = True

    def run(self) -> None:
        """Draw until `stop`. Call it from one thread. Raises DeviceLost and JobStalled: this process is of no use."""
        with torch.no_grad():
            while not self._stopped:
                seen = self._news.count
                batch = self._next_batch()
                if batch:
                    self._draw(batch)
                    continue
                # Whoever waits for a model waits for a sign of its loading.
                if not len(self._line):
                    advanced()
                if not self._news.wait(seen, IDLE_LOOK_SECONDS) and not len(self._line):
                    self.models.drop_idle(self._idle_seconds)

    def _next_batch(self) -> list[PictureInWork]:
        """The oldest picture that can go on, and what fits beside it; their trajectories have begun."""
        pictures = self._line.pictures()
        last = self._ask_for_models(pictures)
        # Nothing new for a reader that does not read what it has.
        fresh = {one for one in pictures[: last + 1] if not one.ticket.is_full}
        going = [one for one in pictures if one.trajectory is not None or one in fresh]
        for picture in going:
            # A sibling may have ended its request just now.
            if picture.ticket.over:
                continue
            if not picture.key:
                return [picture]
            with self._ending_requests_of([picture]):
                if self._begun(picture):
                    return self._filled(picture, going)
        return []

    def _ask_for_models(self, pictures: list[PictureInWork]) -> int:
        """Have the first model loaded that is not here; returns the place behind which nothing new is begun.

        Where there is no room for it, what is in work ends first, and its model can go.
        """
        busy = {one.key for one in pictures if one.trajectory is not None}
        self.models.shrink({*busy, *(one.key for one in pictures[:1])})
        for place, picture in enumerate(pictures):
            if picture.key and picture.model is None and not self.models.has(picture.key):
                self._end_those_whose_model_failed(picture, pictures)
                if not picture.ticket.over:
                    return len(pictures) if self.models.want(picture.drawing.model, busy) else place
            busy.add(picture.key)
        return len(pictures)

    def _end_those_whose_model_failed(self, picture: PictureInWork, pictures: list[PictureInWork]) -> None:
        error = self.models.failure_since(picture.key, picture.ticket.since)
        if error is not None:
            self._fail([one for one in pictures if one.key == picture.key], error)

    def _begun(self, picture: PictureInWork) -> bool:
        """Whether a picture's trajectory is there, made if its model is here."""
        if picture.trajectory is not None:
            return True
        model = self.models.find(picture.key)
        if model is None:
            return False
        # Libraries change torch for the whole process while they read a model.
        with self.models.reading:
            model.put_beside(picture.drawing.adapters, self._files)
            model.switch(picture.drawing.adapters)
            picture.trajectory = trajectory_of(model, picture.drawing, picture.number, self._open_picture)
        picture.model, picture.began = model, time.monotonic()
        picture.group = group_of(picture.drawing, picture.key, picture.trajectory)
        return True

    def _filled(self, head: PictureInWork, going: list[PictureInWork]) -> list[PictureInWork]:
        batch = [head]
        if head.shape != ALONE and not head.apart:
            batch += self._beside(head, going)
        if not head.shape:
            head.shape = head.fixed_shape or self._shape_for(head, len(batch))
            self._reports.started(head)
        if head.shape == ALONE:
            return [head]
        for other in batch[1:]:
            if not other.shape:
                other.shape = head.shape
                self._reports.started(other)
        return batch

    def _beside(self, head: PictureInWork, going: list[PictureInWork]) -> list[PictureInWork]:
        """What may go into one call with a picture; what begins and does not fit is tried once in a call."""
        found: list[PictureInWork] = []
        tried = 0
        for other in going:
            if len(found) >= TOGETHER - 1 or tried >= TOGETHER:
                break
            if other is head or other.ticket.over or other.apart or other.outline != head.outline:
                continue
            if ALONE in (other.shape, other.fixed_shape):
                continue
            tried += other.trajectory is None
            begun = False
            with self._ending_requests_of([other]):
                begun = self._begun(other)
            if begun and other.group == head.group and other.model is head.model:
                found.append(other)
        return found

    def _shape_for(self, head: PictureInWork, count: int) -> int:
        if count < WORTH_TOGETHER or head.group in self._alone_only or head.trajectory is None or head.model is None:
            return ALONE
        latents = head.trajectory.latents.expand(TOGETHER, -1, -1, -1)
        fitting = images_at_a_time(head.model.components, latents, guided=head.trajectory.guidance.needed)
        return TOGETHER if fitting >= TOGETHER else ALONE

    def _draw(self, batch: list[PictureInWork]) -> None:
        began = time.monotonic()
        if batch[0].key:
            failure = self._called(batch)
            if failure is not None:
                self._after_failure(batch, failure)
                return
            self.calls += 1
        advanced()
        took = (time.monotonic() - began) / len(batch)
        for picture in batch:
            picture.busy_seconds += took
            # Each by itself: what is wrong with one of them, its source say, ends no other.
            with self._ending_requests_of([picture]), self.models.narrow:
                self._reports.after_step(picture)

    def _called(self, batch: Sequence[PictureInWork]) -> Exception | None:
        """One step of each; returns what the call failed by."""
        head, model = batch[0], batch[0].model
        assert model is not None, "a picture that has begun has its model"
        trajectories = [one.trajectory for one in batch if one.trajectory is not None]
        try:
            # Those of a picture that has begun may have been let go since.
            if not model.holds(head.drawing.adapters):
                with self.models.reading:
                    model.put_beside(head.drawing.adapters, self._files)
            with self.models.narrow:
                model.switch(head.drawing.adapters)
                predictions = predict_together(model.family, model.components, trajectories, head.shape)
        except JobStalled:
            raise
        except Exception as error:  # noqa: BLE001 - judged outside, where it does not hold what found no room
            return error.with_traceback(None)
        for picture, prediction in zip(batch, predictions, strict=True):
            with self._ending_requests_of([picture]):
                if picture.trajectory is not None:
                    picture.trajectory.take(prediction)
        return None

    def _after_failure(self, batch: list[PictureInWork], error: Exception) -> None:
        if is_lost(error):
            raise DeviceLost(f"The device fails in each call from now on ({type(error).__name__}).") from error
        if says_out_of_memory(error):
            self._need_less(batch, error)
        elif len(batch) > 1:
            log.warning("a call for %d pictures failed: each is drawn by itself", len(batch), exc_info=error)
            for picture in batch:
                picture.apart = True
        else:
            self._fail(batch, error)

    def _need_less(self, batch: list[PictureInWork], error: Exception) -> None:
        log.warning("no memory for %d pictures in one call", batch[0].shape)
        if batch[0].shape == TOGETHER:
            self._alone_only[batch[0].group] = True
        for picture in batch:
            # A picture that is drawn again in its recorded shape has no other one.
            if picture.tried_again or picture.fixed_shape == TOGETHER:
                self._fail([picture], error)
            else:
                picture.tried_again = picture.shape == ALONE
                picture.begin_again()
        self.models.drop_idle(0.0, {one.key for one in batch})
        return_freed(self._device)

    @contextmanager
    def _ending_requests_of(self, pictures: list[PictureInWork]) -> Generator[None]:
        """In the block an error ends the requests of these pictures; a hang or a lost device ends the engine too."""
        try:
            yield
        except JobStalled as error:
            self._fail(pictures, error)
            raise
        except Exception as error:
            self._fail(pictures, error)
            if is_lost(error):
                raise DeviceLost(f"The device fails from now on ({type(error).__name__}).") from error

    def _fail(self, pictures: list[PictureInWork], error: Exception) -> None:
        """End the requests of these pictures with a reason."""
        log.error("a drawing failed: %s", type(error).__name__, exc_info=error)
        tickets = list(dict.fromkeys(one.ticket for one in pictures))
        self._line.remove(tickets)
        code, reason = failure_of(error)
        for ticket in tickets:
            if not ticket.over:
                ticket.ended = True
                ticket.send(DrawingFailed(code=code, reason=reason))
