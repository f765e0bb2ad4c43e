"""What a recipe leaves open is resolved on the machine of the first claim, once."""

from __future__ import annotations

import msgspec

from storage.records.jobs.jobs import JobKind
from storage.records.jobs.machines import Machine, resolve_on
from storage.records.jobs.training import TrainingJobRequest
from tests.storage.records.jobs.test_training import resolved

MACHINE = Machine(device="cpu", threads=3, libraries={"torch": "2"})
OTHER = Machine(device="NVIDIA H200", threads=9, libraries={"torch": "3"})


def test_a_training_recipe_is_resolved_once_and_its_hash_is_that_of_the_whole() -> None:
    asked = resolved()
    assert (asked.recipe.threads, asked.recipe.libraries, asked.recipe.device) == (0, {}, "")
    first = resolve_on(MACHINE, JobKind.TRAINING, msgspec.to_builtins(asked))
    assert first is not None
    whole = msgspec.convert(first.request, TrainingJobRequest)
    assert (whole.recipe.threads, whole.recipe.libraries, whole.recipe.device) == (3, {"torch": "2"}, "cpu")
    assert first.recipe_hash == whole.recipe.fingerprint() != asked.recipe.fingerprint()
    assert msgspec.structs.replace(whole, recipe=asked.recipe) == asked
    assert resolve_on(OTHER, JobKind.TRAINING, first.request) is None


def test_a_recipe_of_before_keeps_what_was_written_at_its_submission() -> None:
    older = msgspec.to_builtins(resolved())
    older["recipe"] |= {"threads": 2, "libraries": {"torch": "1"}}
    del older["recipe"]["device"]
    assert resolve_on(OTHER, JobKind.TRAINING, older) is None


def test_a_drawing_leaves_nothing_open_that_a_machine_could_say() -> None:
    assert resolve_on(MACHINE, JobKind.GENERATION, {"asked": {}, "steps": []}) is None
    assert resolve_on(MACHINE, JobKind.GENERATION, {"prompt": "of before workflows", "threads": 0}) is None
