"""What is asked for to measure a training's loss has to fit together, and to leave photos to learn from."""

from __future__ import annotations

import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.validation import refuse_photos_that_do_not_fit


def test_photos_are_held_out_of_a_training_that_measures_and_that_keeps_some() -> None:
    refuse_photos_that_do_not_fit({"validation_every": 0, "validation_photos": 0}, 1)
    refuse_photos_that_do_not_fit({"validation_every": 5, "validation_photos": 2}, 3)
    refuse_photos_that_do_not_fit({"validation_every": 5, "validation_photos": 2})
    with pytest.raises(InvalidRequest, match="validationEvery"):
        refuse_photos_that_do_not_fit({"validation_every": 0, "validation_photos": 1})
    with pytest.raises(InvalidRequest, match=r"less than the number of different photos \(2\)"):
        refuse_photos_that_do_not_fit({"validation_every": 5, "validation_photos": 2}, 2)
