"""Changes of the catalogue are merged without losing any."""

from __future__ import annotations

from storage.records.events.events import CHANGES, CreatorsChanged, ImagesChanged, Lane, ModelsChanged, merged


def test_changes_of_a_kind_and_lane_are_one() -> None:
    changes = [
        ModelsChanged(model_ids=(2, 1), lane=Lane.EDITS),
        ImagesChanged(image_ids=(5,), lane=Lane.EDITS),
        ModelsChanged(model_ids=(3, 2), lane=Lane.EDITS),
        ModelsChanged(model_ids=(2,), lane=Lane.COUNTS),
        CreatorsChanged(numbers=(9,), lane=Lane.VISIBILITY),
        ImagesChanged(model_ids=(7,), account_numbers=(8,), lane=Lane.EDITS),
    ]
    assert merged(changes) == [
        ModelsChanged(model_ids=(1, 2, 3), lane=Lane.EDITS),
        ImagesChanged(image_ids=(5,), model_ids=(7,), account_numbers=(8,), lane=Lane.EDITS),
        ModelsChanged(model_ids=(2,), lane=Lane.COUNTS),
        CreatorsChanged(numbers=(9,), lane=Lane.VISIBILITY),
    ]
    assert {change.kind for change in changes} == set(CHANGES)
    assert merged([]) == []
