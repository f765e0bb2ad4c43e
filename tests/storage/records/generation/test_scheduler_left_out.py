from __future__ import annotations

import diffusers

from storage.records.generation.scheduler_left_out import LEFT_OUT_CLASSES, LEFT_OUT_NAMES
from storage.records.generation.scheduler_names import display_names
from storage.records.generation.scheduler_table import SCHEDULERS


def test_every_scheduler_of_diffusers_draws_here_or_is_left_out_with_a_reason():
    theirs = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    ours = {kind.diffusers for kind in SCHEDULERS.values() if kind.diffusers}
    assert ours | set(LEFT_OUT_CLASSES) == theirs
    assert not ours & set(LEFT_OUT_CLASSES)


def test_what_is_offered_in_place_of_something_draws_here():
    offered = [one.nearest for one in (*LEFT_OUT_CLASSES.values(), *LEFT_OUT_NAMES.values())]
    assert set(offered) - {""} <= set(display_names())
