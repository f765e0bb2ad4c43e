"""A preset fills what a request leaves out, and nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.choices import ModelFamily, TrainingMethod, TrainingOptimizer, TrainingPreset
from storage.records.jobs.presets import PRESETS, with_preset
from storage.records.jobs.resolved_requests import resolve
from storage.records.jobs.training import TrainingDefaults, TrainingRequest
from tests.storage.records.jobs.test_training import BASE, DATA_SET

EACH = [(preset, *place) for preset, rows in PRESETS.items() for place in rows]


def asked(**fields: Any) -> TrainingRequest:
    return TrainingRequest(data_set_id=DATA_SET, class_word="mug", **fields)


def test_there_is_something_for_every_card() -> None:
    assert set(PRESETS) == set(TrainingPreset)
    assert {one.card_gib for one in TrainingPreset} == {0, 8, 12, 16, 24}


@pytest.mark.parametrize(("preset", "family", "method"), EACH)
def test_all_that_is_left_out_is_filled(preset: TrainingPreset, family: str, method: str) -> None:
    filled = with_preset(asked(preset=preset, method=TrainingMethod(method)), family, TrainingDefaults())
    for name, value in PRESETS[preset][ModelFamily(family), TrainingMethod(method)].items():
        assert getattr(filled, name) == value
    msgspec.convert(msgspec.to_builtins(filled), TrainingRequest)  # of the field's own type and limits


@pytest.mark.parametrize(("preset", "family", "method"), EACH)
def test_what_is_said_stays(preset: TrainingPreset, family: str, method: str) -> None:
    mine: dict[str, Any] = {"precision": "fp16", "gradient_checkpointing": False, "batch_size": 3, "ema_decay": 0.5}
    filled = with_preset(asked(preset=preset, method=TrainingMethod(method), **mine), family, TrainingDefaults())
    assert {name: getattr(filled, name) for name in mine} == mine
    assert filled.accumulation is None


def test_a_smaller_batch_is_made_up_for() -> None:
    base = TrainingDefaults(batch_size=4, accumulation=2)
    filled = with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, base)
    assert (filled.batch_size, filled.accumulation) == (1, 8)


def test_the_method_is_the_requests_or_the_bases_and_never_the_presets() -> None:
    assert with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, TrainingDefaults()).method == "full"
    own = TrainingDefaults(method="lora")
    assert with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, own).method == "lora"
    with pytest.raises(InvalidRequest, match=r"model's own method full of family sd1, .* Set method: lora to train"):
        with_preset(asked(preset=TrainingPreset.GPU_8GB), ModelFamily.SD1, TrainingDefaults())


def test_an_eight_bit_optimizer_stands_for_its_own_only() -> None:
    for own in ("adamw", "adamw_8bit"):
        filled = with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, TrainingDefaults(optimizer=own))
        assert filled.optimizer == "adamw_8bit"
    prodigy = TrainingDefaults(optimizer="prodigy", learning_rate=1.0)
    with pytest.raises(InvalidRequest, match=r"room for optimizer adamw_8bit only, .* own is prodigy"):
        with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, prodigy)
    said = asked(preset=TrainingPreset.GPU_12GB, optimizer=TrainingOptimizer.LION_8BIT)
    assert with_preset(said, ModelFamily.SD1, prodigy).optimizer == "lion_8bit"
    assert with_preset(asked(preset=TrainingPreset.GPU_24GB), ModelFamily.SD1, prodigy).optimizer is None


def test_a_bases_moving_average_stays_or_is_refused() -> None:
    base = TrainingDefaults(ema_decay=0.999)
    with pytest.raises(InvalidRequest, match=r"no room for this base model's moving average \(emaDecay 0.999\)"):
        with_preset(asked(preset=TrainingPreset.GPU_12GB), ModelFamily.SD1, base)
    assert with_preset(asked(preset=TrainingPreset.GPU_12GB, ema_decay=0.0), ModelFamily.SD1, base).ema_decay == 0
    assert with_preset(asked(preset=TrainingPreset.GPU_24GB), ModelFamily.SD1, base).ema_decay is None


def test_a_refused_adapter_is_not_advised_to_train_fewer_weights() -> None:
    with pytest.raises(InvalidRequest) as refused:
        with_preset(asked(preset=TrainingPreset.GPU_8GB, method=TrainingMethod.LORA), "sdxl", TrainingDefaults())
    assert "trainOnly" not in str(refused.value.fields)


@pytest.mark.parametrize(
    ("preset", "family", "method", "words"),
    [
        (
            TrainingPreset.GPU_8GB,
            "sd1",
            "full",
            "method: lora .*Available are: cpu with method lora, .*gpu-12gb with method full",
        ),
        (TrainingPreset.GPU_24GB, "sdxl", "full", "which does not fit"),
        (TrainingPreset.GPU_24GB, "toy", "full", "no preset knows the family 'toy'"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(preset: Any, family: str, method: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        with_preset(asked(preset=preset, method=TrainingMethod(method)), family, TrainingDefaults())


def test_the_job_says_which_preset_filled_it() -> None:
    request = asked(preset=TrainingPreset.CPU, learning_rate=2e-4)
    job = resolve(request, data_set_hash="d" * 64, base=BASE, seed=5)
    assert (job.preset, job.recipe.split_backward, job.recipe.learning_rate) == ("cpu", True, 2e-4)
    assert resolve(asked(), data_set_hash="d" * 64, base=BASE, seed=5).preset == ""


def test_what_a_preset_sets_is_the_same_job_as_when_it_is_asked_for() -> None:
    by_name = resolve(asked(preset=TrainingPreset.CPU), data_set_hash="d" * 64, base=BASE, seed=5).recipe
    fields = PRESETS[TrainingPreset.CPU][ModelFamily.SD1, TrainingMethod.FULL]
    assert resolve(asked(**fields), data_set_hash="d" * 64, base=BASE, seed=5).recipe == by_name
