"""Pictures stay where they are stored; what is decoded of them at a time is one, and what a network sees are a few."""

from __future__ import annotations

import gc
import hashlib
import io
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.diffusion.families.protocol import Components
from flows.runs.liveness import PROCESS
from flows.training.evaluation import split_images
from flows.training.photos.crops import pixels_of, square_of
from flows.training.photos.latents import encode_for, encode_images
from flows.training.photos.materials import Materials
from flows.training.photos.pictures import (
    MEASURED_TOGETHER,
    SquarePixels,
    StoredPicture,
    measured_in_batches,
    one_by_one,
)
from storage.records.jobs.data_sets import DataSetImage
from tests.flows.training.tiny import FAMILY, pictures, recipe


class Shelf:
    """PNGs by their hashes, which counts what is read, and of what was decoded how much was there at once."""

    def __init__(self, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch) -> None:
        self.contents = {hashlib.sha256(content).hexdigest(): content for content in map(_png, images)}
        self.reads: list[str] = []
        self.most = 0
        decoded: list[weakref.ref[Image.Image]] = []
        original: Callable[[StoredPicture], Image.Image] = StoredPicture.decoded

        def counted(picture: StoredPicture) -> Image.Image:
            image = original(picture)
            decoded.append(weakref.ref(image))
            self.most = max(self.most, sum(one() is not None for one in decoded))
            return image

        monkeypatch.setattr(StoredPicture, "decoded", counted)

    def read(self, sha256: str) -> bytes:
        self.reads.append(sha256)
        return self.contents[sha256]

    def rows(self) -> list[DataSetImage]:
        return [
            DataSetImage(position=place, name=f"{place}.png", sha256=sha256, size=9, width=0, height=0)
            for place, sha256 in enumerate(self.contents)
        ]

    def stored(self) -> list[StoredPicture]:
        return [StoredPicture(lambda sha256=sha256: self.read(sha256)) for sha256 in self.contents]


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def wide_ones(count: int) -> list[Image.Image]:
    return [picture.resize((96, 72)) for picture in pictures(count)]


def test_photos_and_class_images_are_decoded_for_their_crops_alone(
    components: Components, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(random_crop=True, cached_crops=2, random_flip=True)
    plain, of_class = wide_ones(5), pictures(4, "class")
    expected = encode_for(wanted, FAMILY, components, plain, of_class)
    shelf, class_shelf = Shelf(plain, monkeypatch), Shelf(of_class, monkeypatch)
    found = encode_for(wanted, FAMILY, components, shelf.stored(), class_shelf.stored())
    assert expected.regularization is not None
    assert found.regularization is not None
    for one, other in ((expected.instance, found.instance), (expected.regularization, found.regularization)):
        assert torch.equal(one.mean, other.mean)
        assert torch.equal(one.std, other.std)
        assert one.sizes == other.sizes
    # The one that the next is decoded beside is still a variable of whoever crops.
    assert max(shelf.most, class_shelf.most) <= 2
    assert len(class_shelf.reads) == 4, "once each, with no look at its size"
    assert len(shelf.reads) == 10, "its size, and then all four views of it"


def test_a_photo_that_is_listed_twice_is_decoded_once(components: Components, monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(wide_ones(2), monkeypatch)
    materials = Materials(Path(), [*shelf.rows(), *shelf.rows()], recipe(), shelf.read)
    gc.collect()
    assert len(shelf.reads) == len(shelf.contents) == 2
    assert [photo.size for photo in materials.photos] == [(96, 72)] * 4
    latents = encode_images(FAMILY, components, materials.photos, 64)
    assert len(shelf.reads) == 4
    assert torch.equal(latents.mean[0], latents.mean[1])
    assert shelf.most <= 2


def test_a_square_makes_the_pixels_that_its_photo_makes() -> None:
    for size in ((96, 72), (40, 90), (64, 64)):
        photo = pictures(1)[0].resize(size)
        assert torch.equal(pixels_of(square_of(photo, 64), (64, 64)), pixels_of(photo, (64, 64)))


def test_a_network_sees_a_few_pictures_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 2 * MEASURED_TOGETHER + 3
    shelf = Shelf(wide_ones(count), monkeypatch)
    seen: list[int] = []
    signs: list[int] = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return images.mean((2, 3))

    pixels = SquarePixels(shelf.stored(), 64)
    with PROCESS.heard_by(lambda: signs.append(len(seen))):
        means = measured_in_batches(network, pixels)
    assert seen == [MEASURED_TOGETHER, MEASURED_TOGETHER, 3]
    assert signs == [1, 2, 3], "a sign of progress behind each"
    assert shelf.most <= 2
    assert len(pixels) == len(shelf.reads) == count
    whole = torch.stack([pixels_of(image, (64, 64)) for image in wide_ones(count)])
    assert torch.equal(means, whole.mean((2, 3)))
    assert torch.equal(measured_in_batches(network, whole), means), "a tensor is such a row of images too"


def test_what_an_evaluation_drew_is_no_tensor_before_it_is_measured() -> None:
    split = split_images(pictures(10), 64)
    assert isinstance(split.subject, SquarePixels)
    assert (len(split.subject), len(split.of_class)) == (2, 8)


def test_neighbours_that_are_one_picture_are_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf(wide_ones(2), monkeypatch)
    first, second = shelf.stored()
    images = list(one_by_one([first, first, second, first]))
    assert len(shelf.reads) == 3
    assert images[0] is images[1]
    assert images[0].tobytes() == images[3].tobytes()
