"""A worker of an older release refuses a job that uses an option it does not know, and no other."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.jobs import JobKind
from storage.records.jobs.machines import Machine, resolve_on
from storage.records.jobs.requirements import refuse_unknown, with_needs
from storage.records.jobs.training import TrainingJobRequest
from tests.flows.training.tiny import recipe

MACHINE = Machine(device="cpu", threads=2, libraries={"torch": "2"})


def request(**options: Any) -> dict[str, Any]:
    asked = TrainingJobRequest(
        data_set_id=UUID("6f0c1e0a-2b1d-4d57-9a2f-0b7f3a0c9d11"),
        base_model="tiny",
        model_name="sks mug",
        recipe=recipe(threads=0, **options),
    )
    return with_needs(msgspec.to_builtins(asked))


def later(needed: bool) -> dict[str, Any]:
    """As a later release writes it, with an option that this one does not know."""
    made = request(ema_decay=0.5)
    made["recipe"]["fancy"] = needed
    return {**made, "needs": [*made["needs"], *(["fancy"] if needed else [])]}


def test_a_request_needs_the_options_that_are_not_at_their_default() -> None:
    assert request()["needs"] == []
    assert request(ema_decay=0.5, lora_dora=True, chosen_step=3)["needs"] == ["chosen_step", "ema_decay", "lora_dora"]


def test_an_option_that_is_needed_and_unknown_is_refused_by_name() -> None:
    refuse_unknown(request(ema_decay=0.5))
    refuse_unknown(later(needed=False))
    with pytest.raises(InvalidRequest, match="this release knows no option 'fancy', which the job asks for"):
        refuse_unknown(later(needed=True))


def test_without_a_list_every_unknown_field_is_refused() -> None:
    made = later(needed=False)
    del made["needs"]
    with pytest.raises(InvalidRequest, match="'fancy'"):
        refuse_unknown(made)


def test_a_claim_keeps_what_only_a_later_release_knows() -> None:
    resolved = resolve_on(MACHINE, JobKind.TRAINING, later(needed=True))
    assert resolved is not None
    assert resolved.request["recipe"]["fancy"] is True
    assert resolved.request["recipe"]["threads"] == 2
    assert list(resolved.request["needs"]) == ["ema_decay", "fancy"]
