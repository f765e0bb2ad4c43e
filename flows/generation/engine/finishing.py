"""From latents to a picture, and to a small one on the way."""

from __future__ import annotations

import io
import logging
from weakref import WeakKeyDictionary

from PIL import Image
from torch import Tensor

from flows.diffusion.finite import is_finite
from flows.diffusion.previews import fit_colours, preview
from flows.diffusion.sampler import to_image
from flows.diffusion.sources import pasted, resized
from flows.diffusion.trajectories import Trajectory
from flows.generation.engine.preparation import OpenPicture
from flows.generation.engine.resident_model import ResidentModel
from storage.errors import JobCannotSucceed
from storage.records.generation.drawings import Drawing, Operation

log = logging.getLogger("darkroom.engine")

PREVIEW_QUALITY = 80


class Finisher:
    """Makes pictures of what the models of one engine have drawn."""

    def __init__(self, open_picture: OpenPicture) -> None:
        self._open_picture = open_picture
        self._colours: WeakKeyDictionary[ResidentModel, Tensor] = WeakKeyDictionary()

    def finished(self, model: ResidentModel | None, drawing: Drawing, trajectory: Trajectory | None) -> Image.Image:
        """The RGB picture of a trajectory that has ended; an upscaled source where there is none.

        Outside the mask of an inpainting it is the source. Raises JobCannotSucceed for latents that are no numbers.
        """
        if drawing.operation is Operation.UPSCALE:
            return resized(self._open_picture(drawing.source), drawing.width, drawing.height)
        assert model is not None, "a picture that is drawn has its model"
        assert trajectory is not None, "a picture that is drawn has its latents"
        if not is_finite(trajectory.latents):
            raise JobCannotSucceed(
                "The model draws numbers that are none (NaN). Try another scheduler, or adapters of less strength."
            )
        # Alone, whatever was drawn beside it: at 1024 px a decoder needs 3 GB a picture.
        image = to_image(model.family.decode_latents(model.components, trajectory.latents)[0])
        if drawing.operation is Operation.INPAINT:
            return pasted(image, self._open_picture(drawing.source), self._open_picture(drawing.mask))
        return image

    def preview(self, model: ResidentModel, trajectory: Trajectory) -> bytes:
        """A JPEG of what a picture looks like so far, one pixel a latent; nothing where that fails, which ends none."""
        written = io.BytesIO()
        try:
            if model not in self._colours:
                self._colours[model] = fit_colours(model.family, model.components)
            image = preview(self._colours[model], trajectory.clean_estimate(model.components))
            image.save(written, "JPEG", quality=PREVIEW_QUALITY)
        except (RuntimeError, ValueError, OSError):
            log.warning("a preview failed", exc_info=True)
            return b""
        return written.getvalue()
