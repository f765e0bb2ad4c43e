"""Photos that a training's loss is measured on are in nothing that it learns from, also not as copies."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from flows.training import dreambooth_steps
from flows.training.dreambooth import train_dreambooth
from flows.training.photos.encodings import EncodingCache
from storage.errors import InvalidRequest, JobCannotSucceed
from storage.postgres.jobs import data_sets
from storage.stores import Stores
from tests.flows.training import test_dreambooth
from tests.flows.training.test_dreambooth import (  # noqa: F401 - fixtures of the main job
    environment,
    photos,
    settings,
    submit,
)
from tests.flows.training.tiny import pictures

LONG = "a photo of a sks mug " * 9


def photos_and_copies(stores: Stores, account: UUID) -> UUID:
    """Three photos, each there twice."""
    # The first one's caption is longer than the tiny model's text encoder reads.
    captions = [LONG, *[""] * 5]
    return photos(stores, account, [(image, text, 1) for image, text in zip([*pictures(3)] * 2, captions, strict=True)])


@pytest.mark.usefixtures("environment")
def test_no_copy_of_a_held_out_photo_is_learned_from(
    stores: Stores, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(test_dreambooth, "photos", photos_and_copies)
    encoded: list[dict[str, Any]] = []

    def encode(*arguments: Any, cache: EncodingCache, **given: Any) -> None:
        encoded.append({"photos": arguments[3], **given})
        raise JobCannotSucceed("enough seen")

    monkeypatch.setattr(dreambooth_steps, "encode_for", encode)
    job = submit(stores, tiny_model, validation_every=3, validation_photos=1, prior_loss_weight=0.0)
    # Prefect's loggers hand nothing on to the root's.
    prefect = logging.getLogger("prefect")
    prefect.addHandler(caplog.handler)
    train_dreambooth(job.id, 1, return_state=True)
    prefect.removeHandler(caplog.handler)
    # The one that was sent first, wherever its bytes put it among what is learned from.
    photo = "the prompt of the photo at position 0 of the data set"
    assert f"job {job.id}: {photo} is 56 tokens; the text encoder reads the first 32. Shorten it." in caplog.text
    assert LONG not in caplog.text
    assert f"job {job.id}: warnings: 3; GET /api/v1/training-jobs/" in caplog.text
    assert "is the same picture as" not in caplog.text, "photos' names stay out of Prefect's logs"
    [given] = encoded
    images = stores.database.run(data_sets.images(photos_and_copies(stores, job.account_id)))
    everything = sorted(image.sha256 for image in images)
    assert given["sources"] == everything[:4], "two copies of two photos; both of the third are held out"
    assert [len(given[name]) for name in ("photos", "prompts", "repeats")] == [4, 4, 4]

    with pytest.raises(InvalidRequest, match=r"the number of different photos \(3\)"):
        submit(stores, tiny_model, validation_every=3, validation_photos=3)
