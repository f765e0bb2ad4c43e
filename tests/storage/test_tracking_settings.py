"""Trackers are named in one variable; a name that nobody knows is refused when the settings are read."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from storage.tracking_settings import TrackingSettings


def test_names_are_separated_by_commas_and_count_once() -> None:
    assert TrackingSettings().names == ()
    assert TrackingSettings(trackers="tensorboard").names == ("tensorboard",)
    assert TrackingSettings(trackers=" wandb, tensorboard ,wandb,").names == ("wandb", "tensorboard")


def test_an_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValidationError, match="comet is no tracker; known are: tensorboard, wandb"):
        TrackingSettings(trackers="tensorboard,comet")
