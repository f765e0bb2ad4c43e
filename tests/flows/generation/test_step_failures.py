"""How long a step is tried. What becomes of its workflow: test_images.py."""

from __future__ import annotations

import time

import pytest

from flows.generation.step_failures import BackendPatience, BackendsUnavailable
from storage.errors import BackendUnavailable
from storage.records.generation.workflow_rows import FailedTries

DIED = BackendUnavailable("The engine ended.")


def test_time_in_which_a_backend_draws_is_none_in_which_it_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    patience = BackendPatience("base", 30.0, FailedTries())
    for _ in range(2):
        patience.begins()
        clock[0] += 31 * 60
        assert patience.pause_after(DIED) > 0
    clock[0] += 31 * 60
    with pytest.raises(BackendsUnavailable, match="for 30 minutes"):
        patience.pause_after(DIED)
