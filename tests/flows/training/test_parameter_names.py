from __future__ import annotations

import pytest

from flows.training.parameter_names import refuse_unmatched, selected
from storage.errors import JobCannotSucceed
from storage.records.jobs.trained_parts import matches

NAMES = ["unet.conv_in.weight", "unet.mid_block.attn2.to_k.weight", "text_encoder.final_layer_norm.bias"]


def test_no_pattern_is_every_name_and_several_are_any_of_them() -> None:
    assert all(matches("", name) for name in NAMES)
    assert [name for name in NAMES if matches("unet.*attn2* , text_encoder.*", name)] == NAMES[1:]
    assert selected("unet.conv_??.*", dict.fromkeys(NAMES, 1)) == {NAMES[0]: 1}
    assert not matches("UNET.*", NAMES[0]), "case counts, as in the names"


def test_a_pattern_that_matches_nothing_is_refused_with_examples() -> None:
    refuse_unmatched("unet.*, text_encoder.*,", NAMES)
    with pytest.raises(JobCannotSucceed, match=f"matches 'vae'; there are 3, for example {NAMES[0]} and {NAMES[2]}"):
        refuse_unmatched("unet.*,vae", NAMES)
