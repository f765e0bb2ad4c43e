"""What a training works on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from PIL import Image

from flows.training.photos.pictures import StoredPicture
from storage.errors import JobCannotSucceed
from storage.records.jobs.data_sets import DataSetImage, kept_out
from storage.records.jobs.training import TrainingRecipe
from storage.records.jobs.training_samples import prompt_of


class Materials:
    """The base model's folder and the photos, in an order that their bytes decide.

    Of each photo: its prompt, how often it comes in a pass, its SHA-256, and its position in the data set. The first
    `learned` are learned from, the others kept out to measure the loss on. `read` returns a blob's bytes by its hash; a
    photo is read again each time that it is looked at. Raises JobCannotSucceed naming a photo that does not open.
    """

    def __init__(
        self, base_folder: Path, rows: Sequence[DataSetImage], recipe: TrainingRecipe, read: Callable[[str], bytes]
    ) -> None:
        # The order of upload must not change the weights.
        rows = sorted(rows, key=lambda row: (row.sha256, row.caption, row.repeats, row.whole_prompt))
        self.base_folder = base_folder
        # A photo that is there several times is one picture.
        distinct = {row.sha256: row for row in rows}
        pictures = {key: _opened(row, StoredPicture(partial(read, key))) for key, row in distinct.items()}
        self.photos: list[StoredPicture] = [pictures[row.sha256] for row in rows]
        self.prompts: list[str] = [_prompt(row, recipe) for row in rows]
        self.repeats: list[int] = [row.repeats for row in rows]
        self.sources: list[str] = [row.sha256 for row in rows]
        self.positions: list[int] = [row.position for row in rows]
        self.learned: int = learned_rows(self.sources, recipe.validation_photos)


def learned_rows(sources: Sequence[str], held_out: int) -> int:
    """How many rows are learned from, those that come first, when the last `held_out` photos are kept out.

    sources: the SHA-256 of each row's photo, in any order. A photo that is there twice is kept out twice.
    """
    left_out = kept_out(sources, held_out)
    return sum(source not in left_out for source in sources)


def _prompt(row: DataSetImage, recipe: TrainingRecipe) -> str:
    if row.whole_prompt and row.caption:
        return row.caption
    return prompt_of(row.caption, recipe.identifier, recipe.instance_prompt)


def _opened(row: DataSetImage, picture: StoredPicture) -> StoredPicture:
    """A photo that was decoded once, so that a damaged one stops the job before it has cost anything."""
    try:
        picture.decoded()
    except (Image.DecompressionBombError, OSError, ValueError) as error:
        raise JobCannotSucceed(f"Photo '{row.name}' does not open ({error}). Upload the photos again.") from error
    return picture
