from __future__ import annotations

import re

from storage.records.generation.scheduler_table import SCHEDULERS
from storage.records.generation.schedulers import SchedulerSettings, Spacing


def test_each_has_a_name_a_title_and_a_sentence_of_its_own():
    kinds = SCHEDULERS.values()
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", kind.name) and kind.about.endswith(".") for kind in kinds)
    assert len({kind.title.casefold() for kind in kinds}) == len({kind.about for kind in kinds}) == len(SCHEDULERS)


def test_each_takes_the_default_spacing_and_what_a1111_takes_unless_asked():
    assert SchedulerSettings().name in SCHEDULERS
    for kind in SCHEDULERS.values():
        assert {Spacing.NORMAL, kind.automatic} <= set(kind.spacings)


def test_what_is_neither_ours_nor_diffusers_cannot_be_listed():
    assert all(kind.diffusers or kind.own for kind in SCHEDULERS.values())


def test_an_eta_is_taken_by_default_only_where_one_is_taken_at_all():
    assert {kind.name for kind in SCHEDULERS.values() if kind.takes_eta} == {"ddim", "tcd"}
    assert all(kind.takes_eta or not kind.default_eta for kind in SCHEDULERS.values())
