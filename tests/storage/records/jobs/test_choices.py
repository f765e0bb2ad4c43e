"""Names that a job can be asked for by."""

from __future__ import annotations

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.choices import (
    Choice,
    GenerationBackend,
    LoraTargets,
    ModelFamily,
    TrackerName,
    TrainingMethod,
    TrainingOptimizer,
    catalogue_name,
    check_choice,
)
from storage.records.jobs.training import TrainingDefaults

CHOICES = [ModelFamily, TrainingMethod, LoraTargets, TrainingOptimizer, GenerationBackend, TrackerName]


@pytest.mark.parametrize("names", CHOICES)
def test_a_choice_is_stored_and_read_by_its_name(names: type[Choice]) -> None:
    for name in names:
        assert msgspec.json.decode(msgspec.json.encode(name), type=names) is name
        assert name.about.endswith(".")


@pytest.mark.parametrize("names", CHOICES)
def test_an_unknown_name_is_refused_with_its_field_and_the_known_ones(names: type[Choice]) -> None:
    for name in names:
        check_choice(names, "field", str(name))
    with pytest.raises(InvalidRequest) as refused:
        check_choice(names, "field", "dora")
    assert refused.value.fields == {"field": f"'dora' is unknown; known are: {', '.join(names)}"}


def test_what_is_known_of_a_method_stands_in_its_line() -> None:
    adapters = [method.value for method in TrainingMethod if method.adapter]
    assert adapters == ["lora"]
    assert TrainingMethod.known("lora").learning_rate == 1e-4
    # A recipe of another release: nothing else is known of it.
    assert TrainingMethod.known("lokr") is TrainingMethod.FULL
    assert TrainingDefaults(method="lora").trains_adapter
    assert not TrainingDefaults(method="lokr").trains_adapter


def test_a_base_model_that_says_nothing_has_the_defaults() -> None:
    assert (TrainingDefaults().method, TrainingDefaults().optimizer) == ("full", "adamw")
    assert type(TrainingDefaults().method) is str


def test_a_fine_tune_counts_as_its_familys_base_from_its_own_size_on() -> None:
    assert catalogue_name("sd1", 512) == catalogue_name("sd1", 768) == "SD 1.5"
    assert catalogue_name("sd1", 64) == catalogue_name("sd9", 512) == "Other"
