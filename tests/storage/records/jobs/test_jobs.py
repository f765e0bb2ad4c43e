"""Every pair of states, and who may move them."""

from __future__ import annotations

from itertools import product

from storage.records.jobs.jobs import TERMINAL, TRANSITIONS, Actor, JobState, may_move


def test_every_pair_of_states() -> None:
    allowed = {pair for pair in product(JobState, JobState) if may_move(*pair)}
    assert len(list(product(JobState, JobState))) == 36
    assert allowed == set(TRANSITIONS)
    assert not any(old in TERMINAL for old, _ in allowed)
    assert not any(old is new for old, new in allowed)


def test_every_state_can_end_and_every_move_has_an_actor() -> None:
    for state in set(JobState) - TERMINAL:
        reached = {state}
        for _ in JobState:
            reached |= {new for old, new in TRANSITIONS if old in reached}
        assert reached & TERMINAL
    assert all(actors <= set(Actor) and actors for actors in TRANSITIONS.values())
