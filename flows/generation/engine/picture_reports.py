"""What is sent of a picture: that it began, its steps, previews, and itself."""

from __future__ import annotations

import time

from flows.diffusion.trajectories import ALONE
from flows.generation.engine.finishing import Finisher
from flows.generation.engine.messages import DrawingEnded, PictureDrawn, PictureStarted, PreviewDrawn, StepDone
from flows.generation.engine.tickets import Line, PictureInWork

PREVIEW_SECONDS = 0.5


class PictureReports:
    """Sends to whoever asked for a picture. A picture that is done leaves the line."""

    def __init__(self, line: Line, finisher: Finisher) -> None:
        self._line, self._finisher = line, finisher

    def started(self, picture: PictureInWork) -> None:
        """It is being drawn in its shape; again where it found no memory in another one."""
        picture.ticket.send(PictureStarted(number=picture.number, shape=picture.shape))

    def after_step(self, picture: PictureInWork) -> None:
        """How far it is, and where that is its end the picture. Raises what finishing it raises."""
        trajectory, ticket, model = picture.trajectory, picture.ticket, picture.model
        if ticket.over:
            return
        if trajectory is not None and model is not None:
            ticket.send(StepDone(number=picture.number, step=trajectory.done, steps=trajectory.total))
            now = time.monotonic()
            if not trajectory.ended:
                if ticket.request.previews and now - picture.previewed >= PREVIEW_SECONDS:
                    picture.previewed = now
                    if jpeg := self._finisher.preview(model, trajectory):
                        ticket.send(PreviewDrawn(number=picture.number, jpeg=jpeg))
                return
        self._finish(picture)

    def _finish(self, picture: PictureInWork) -> None:
        began, ticket = time.monotonic(), picture.ticket
        image = self._finisher.finished(picture.model, picture.drawing, picture.trajectory)
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
        self._line.done(picture)
        ticket.send(drawn)
        if ticket.ended:
            ticket.send(DrawingEnded())
