"""The card of a base model."""

from __future__ import annotations

from storage.records.jobs.base_models import BaseModelCard


def test_a_folder_without_a_card_is_a_plain_stable_diffusion() -> None:
    card = BaseModelCard()
    assert (card.family, card.resolution, card.class_words) == ("sd1", 512, ())
