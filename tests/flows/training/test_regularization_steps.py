"""Sets of class images that the blob store has lost in part, or damaged: drawn again, with the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from flows.diffusion.families.protocol import Components
from flows.training.regularization_steps import fill_set
from storage.postgres.jobs import sampled_sets
from storage.records.jobs.training import regularization_recipe
from storage.stores import Stores
from tests.flows.training.test_job_checkpoints import blob_of
from tests.flows.training.tiny import recipe


@pytest.mark.parametrize("damaged", [(9,), (14,)])
def test_damaged_images_of_a_set_are_drawn_again(
    stores: Stores, components: Components, tmp_path: Path, damaged: tuple[int, ...]
) -> None:
    # From four rows on a CPU rounds by the size of the batch: a batch of three does not show how many were drawn.
    wanted = regularization_recipe(recipe(regularization_count=16))
    assert wanted.batch_size == 16
    drawn = fill_set(stores, wanted, tmp_path, components=components)
    rows = stores.database.run(sampled_sets.images(wanted))
    contents = [stores.blobs.read(row.sha256) for row in rows]
    for position in damaged:
        blob_of(stores, rows[position].sha256).write_bytes(contents[position][:-1])
    again = fill_set(stores, wanted, tmp_path, components=components)
    assert [image.decoded().tobytes() for image in again] == [image.decoded().tobytes() for image in drawn]
    assert stores.database.run(sampled_sets.images(wanted)) == rows
    assert [stores.blobs.read(row.sha256) for row in rows] == contents
