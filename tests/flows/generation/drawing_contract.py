"""What every backend that draws a Drawing has in common, whoever draws it.

A subclass named `Test...` gives the fixture `drawer`; pytest collects these tests of it alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from flows.diffusion.families.lookup import family_named
from flows.diffusion.sampler import draw_images
from flows.diffusion.sources import resized
from flows.generation.backends.protocol import Backend
from flows.generation.backends.selection import BackendSelection
from flows.generation.callbacks import DrawingCallbacks, ignore
from flows.generation.drawn_pictures import DrawnPicture
from storage.errors import CancellationRequested, InvalidRequest
from storage.records.generation.drawings import Drawing, DrawnImage, DrawnModel, Operation
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.stores import Stores
from tests.flows.generation.comfyui.conftest import MASK, SOURCE, STARTER, picture_named

PROMPT, STEPS, GUIDANCE = "a photo of a mug on a table", 4, 3.0
COMPARED_STEPS = 25
"""What backends are compared at: what they make of the very first noise level shows more in few steps."""


Draw = Callable[[Drawing, DrawingCallbacks], Generator[DrawnPicture]]
"""A drawing's pictures as they are done."""


@dataclass(frozen=True)
class Drawer:
    """A backend under test, behind the selection by which everything is drawn.

    starter: the model that comes with the project, as this backend knows it. editing: a model that can encode pictures.
    levels: of 255, how far a DDIM picture of the starter may be from the one that our sampler draws.
    kept_levels: how far a pixel that the mask keeps may be from the source's. unfinished: how many pictures the backend
    still holds.
    """

    draw: Draw
    starter: DrawnModel
    editing: DrawnModel
    levels: int
    kept_levels: int
    unfinished: Callable[[], int]


def through_selection(stores: Stores, name: str, backend: Backend) -> Draw:
    """How a flow draws by a backend."""
    selection = BackendSelection(stores, {name: backend})

    def draw(drawing: Drawing, callbacks: DrawingCallbacks) -> Generator[DrawnPicture]:
        key, wanted = drawing.fingerprint(), range(len(drawing.images))
        for drawn_by, picture in selection.draw(drawing, callbacks, key=key, wanted=wanted, urgency=0, begins=ignore):
            assert drawn_by == name
            yield picture

    return draw


def a_drawing(model: DrawnModel, *seeds: int, **changes: Any) -> Drawing:
    """Pictures of one prompt, 64 pixels a side, in four steps."""
    plain = Drawing(
        model=model,
        images=tuple(DrawnImage(prompt=PROMPT, seed=seed) for seed in seeds or (7,)),
        width=64,
        height=64,
        steps=STEPS,
        guidance_scale=GUIDANCE,
    )
    return msgspec.structs.replace(plain, **changes)


def an_edit(model: DrawnModel, operation: Operation, **changes: Any) -> Drawing:
    """A drawing over the source."""
    mask = MASK if operation is Operation.INPAINT else ""
    return a_drawing(model, operation=operation, source=SOURCE, mask=mask, **changes)


def drawn(drawer: Drawer, drawing: Drawing, **callbacks: Any) -> dict[int, Image.Image]:
    """All pictures by their numbers."""
    return numbered(drawer.draw(drawing, DrawingCallbacks(**callbacks)))


def numbered(pictures: Iterable[DrawnPicture]) -> dict[int, Image.Image]:
    """Pictures by their numbers, in the order in which they came."""
    return {one.number: one.image for one in pictures}


def apart(one: Image.Image, other: Image.Image) -> int:
    """The greatest difference of two pictures, in levels of 255."""
    return int(np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max())


class DrawingContract:
    """The tests. `drawer` is the subclass's."""

    @pytest.fixture(scope="class")
    @classmethod
    def ours(cls) -> Image.Image:
        """What our sampler draws with the starter, for `a_drawing` of it in so many steps."""
        torch.set_num_threads(1)
        family = family_named("sd1")
        settings = SamplerSettings(steps=COMPARED_STEPS, guidance_scale=GUIDANCE)
        [picture] = draw_images(family, family.load(Path(STARTER)), [PROMPT], [7], settings)
        return picture

    def test_ddim_draws_what_our_sampler_draws(self, drawer: Drawer, ours: Image.Image) -> None:
        picture = drawn(drawer, a_drawing(drawer.starter, steps=COMPARED_STEPS))[0]

        assert picture.mode == "RGB"
        assert apart(picture, ours) <= drawer.levels

    def test_each_picture_has_its_number_and_its_seeds_bytes(self, drawer: Drawer) -> None:
        together = drawn(drawer, a_drawing(drawer.starter, 7, 8, 7))

        assert list(together) == [0, 1, 2]
        assert together[0].tobytes() == together[2].tobytes() != together[1].tobytes()
        alone = drawn(drawer, a_drawing(drawer.starter, 8))[0]
        assert alone.tobytes() == together[1].tobytes()

    def test_a_picture_says_how_long_it_took_and_in_which_shape(self, drawer: Drawer) -> None:
        [picture] = drawer.draw(a_drawing(drawer.starter, 11), DrawingCallbacks())

        assert 0 < picture.seconds < 60
        assert picture.shape == 1

    def test_steps_are_reported_in_order_to_their_end_and_previews_are_pictures(self, drawer: Drawer) -> None:
        steps, previews = list[tuple[int, int, int]](), list[bytes]()
        drawing = a_drawing(drawer.starter, 21)
        drawn(
            drawer, drawing, step=lambda *done: steps.append(done), preview=lambda _, content: previews.append(content)
        )

        assert steps == [(0, done, STEPS) for done in range(1, STEPS + 1)]
        assert previews
        for content in previews:
            with Image.open(io.BytesIO(content)) as image:
                image.load()

    @pytest.mark.parametrize(("width", "height"), [(64, 64), (96, 80)])
    def test_a_picture_from_a_source_has_the_drawings_size(self, drawer: Drawer, width: int, height: int) -> None:
        edit = an_edit(drawer.editing, Operation.IMG2IMG, width=width, height=height)

        assert drawn(drawer, edit)[0].size == (width, height)

    def test_a_source_and_its_strength_change_the_picture(self, drawer: Drawer) -> None:
        weak, strong = (an_edit(drawer.editing, Operation.IMG2IMG, strength=strength) for strength in (0.25, 1.0))

        assert apart(drawn(drawer, weak)[0], drawn(drawer, strong)[0]) > 0

    def test_what_the_mask_keeps_stays_and_the_rest_is_drawn(self, drawer: Drawer) -> None:
        picture, source = drawn(drawer, an_edit(drawer.editing, Operation.INPAINT))[0], picture_named(SOURCE)

        kept, changed = (32, 0, 64, 64), (0, 0, 32, 64)
        assert apart(picture.crop(kept), source.crop(kept)) <= drawer.kept_levels
        assert apart(picture.crop(changed), source.crop(changed)) > 16

    def test_an_upscale_is_the_source_made_larger(self, drawer: Drawer) -> None:
        larger = drawn(drawer, an_edit(drawer.editing, Operation.UPSCALE, width=128, height=96))[0]

        assert apart(larger, resized(picture_named(SOURCE), 128, 96)) <= drawer.kept_levels

    def test_a_cancelled_drawing_stops_and_leaves_nothing_behind(self, drawer: Drawer) -> None:
        done = list[int]()

        def check() -> None:
            if len(done) > 1:
                raise CancellationRequested("The owner asked to stop.")

        drawing = a_drawing(drawer.editing, 31, 32, 33, steps=900)
        with pytest.raises(CancellationRequested):
            drawn(drawer, drawing, check=check, step=lambda _, step, __: done.append(step))
        assert done[-1] < 900
        assert drawer.unfinished() == 0

    def test_whoever_stops_listening_leaves_nothing_behind(self, drawer: Drawer) -> None:
        drawing = drawer.draw(a_drawing(drawer.editing, 41, 42, 43, steps=8), DrawingCallbacks())
        next(drawing)
        drawing.close()

        assert drawer.unfinished() == 0

    def test_a_model_that_is_not_there_is_refused_and_not_replaced(self, drawer: Drawer) -> None:
        unknown = DrawnModel(version_id=987_654, family="sd1", files={"unet/x.safetensors": "9" * 64})
        with pytest.raises(InvalidRequest) as refusal:
            drawn(drawer, a_drawing(unknown))
        assert list(refusal.value.fields) == ["model"]
