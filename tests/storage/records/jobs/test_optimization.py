from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.data_sets import DataSetImage
from storage.records.jobs.optimization import piecewise_rules
from storage.records.jobs.resolved_requests import BaseModelFacts, complete_request, resolve
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingDefaults, TrainingRecipe, TrainingRequest

BASE = BaseModelFacts(
    name="starter",
    folder_hash="b" * 64,
    family="sd1",
    resolution=64,
    class_words=(),
    training=TrainingDefaults(learning_rate=5e-6, token_learning_rate=1e-2),
    sampler=SamplerSettings(),
    evaluation_scenes=(),
)


def resolved(base: BaseModelFacts = BASE, photos: Sequence[DataSetImage] = (), **fields: Any) -> TrainingRecipe:
    request = msgspec.convert({"dataSetId": str(UUID(int=1)), "classWord": "mug", **fields}, TrainingRequest)
    return resolve(request, data_set_hash="d" * 64, base=base, seed=5, photos=photos).recipe


def rates(recipe: TrainingRecipe) -> tuple[float, float, float]:
    return recipe.learning_rate, recipe.text_encoder_learning_rate, recipe.token_learning_rate


def test_prodigy_finds_its_rate_unless_one_is_asked_for() -> None:
    assert rates(resolved()) == (5e-6, 0.0, 1e-2)
    assert rates(resolved(optimizer="prodigy")) == (1.0, 0.0, 1.0)
    assert rates(resolved(optimizer="prodigy", learningRate=0.5)) == (0.5, 0.0, 0.5)
    assert rates(resolved(optimizer="prodigy", textEncoderLearningRate=1.0, tokenLearningRate=0.0)) == (1.0, 1.0, 0.0)


def test_a_base_whose_own_optimizer_is_prodigy_means_its_rates() -> None:
    own = msgspec.structs.replace(BASE.training, optimizer="prodigy", learning_rate=0.3, token_learning_rate=0.3)
    assert rates(resolved(msgspec.structs.replace(BASE, training=own))) == (0.3, 0.0, 0.3)


def test_a_bases_rates_and_alpha_are_not_taken_for_another_method_or_optimizer() -> None:
    def base(**own: Any) -> BaseModelFacts:
        return msgspec.structs.replace(BASE, training=msgspec.structs.replace(BASE.training, **own))

    prodigy = base(optimizer="prodigy", learning_rate=1.0, token_learning_rate=0.0)
    assert rates(resolved(prodigy, optimizer="adamw")) == (5e-6, 0.0, 0.0)
    assert rates(resolved(prodigy, method="lora")) == (1.0, 0.0, 0.0)
    assert rates(resolved(prodigy, method="lora", optimizer="lion")) == (1e-4, 0.0, 0.0)
    lora = base(method="lora", learning_rate=2e-4, token_learning_rate=0.0, lora_rank=32, lora_alpha=32.0)
    assert rates(resolved(lora)) == (2e-4, 0.0, 0.0)
    assert rates(resolved(lora, method="full")) == (5e-6, 0.0, 0.0)
    assert resolved(lora, loraRank=8).lora_alpha == 8.0
    assert resolved(lora).lora_alpha == 32.0


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"optimizer": "prodigy", "tokenLearningRate": 1e-2}, "tokenLearningRate"),
        ({"optimizer": "adamw_schedule_free", "emaDecay": 0.999}, "emaDecay"),
        ({"learningRateSchedule": "polynomial", "learningRate": 1e-7}, "learningRate"),
        ({"learningRateSchedule": "piecewise_constant"}, "scheduleRules"),
        ({"learningRateSchedule": "piecewise_constant", "scheduleRules": "1:20,0.5:10,0.1"}, "scheduleRules"),
        ({"keepEvery": 25, "checkpointEvery": 10}, "keepEvery"),
        ({"keepEvery": 10, "checkpointEvery": 10, "steps": 219}, "keepEvery"),
        ({"learningRateSchedule": "cosine", "scheduleRules": "1:20,0.1"}, "scheduleRules"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(**fields)
    assert list(refused.value.fields) == [named]


PHOTOS = [
    DataSetImage(position=place, name="", sha256=sha256, size=1, width=1, height=1, repeats=repeats)
    for place, (sha256, repeats) in enumerate([("a", 3), ("b", 1), ("c", 1), ("c", 2)])
]
"""Seven samples an epoch, of three pictures."""


def kept(photos: Sequence[DataSetImage] = PHOTOS, **fields: Any) -> tuple[int, int]:
    recipe = resolved(photos=photos, **{"steps": 800, **fields})
    return recipe.keep_every, recipe.checkpoint_every


def test_epochs_are_whole_steps_and_checkpoints_are_written_about_as_often_as_before() -> None:
    assert kept() == (0, 100)
    assert kept(keepEveryEpochs=30) == (210, 105)
    assert kept(keepEveryEpochs=30, batchSize=2) == (105, 105)
    # 52.5 of them; 53 has no divisors that are near 100.
    assert kept(keepEveryEpochs=30, batchSize=2, accumulation=2) == (53, 53)
    assert kept(keepEveryEpochs=30, checkpointEvery=70) == (210, 70)
    # Without the last of the pictures, which is there twice.
    assert kept(keepEveryEpochs=30, validationPhotos=1, validationEvery=10) == (120, 120)
    assert kept([], keepEveryEpochs=30) == (0, 100)


@pytest.mark.parametrize(
    ("fields", "named", "says"),
    [
        ({"keepEveryEpochs": 30, "keepEvery": 200}, "keepEveryEpochs", "in place of keepEvery"),
        ({"keepEveryEpochs": 115}, "keepEveryEpochs", "115 epochs of 7 samples are 805 steps, and the job has 800"),
        ({"keepEveryEpochs": 2}, "keepEveryEpochs", "must be 6 or more: 20 checkpoints"),
        ({"keepEveryEpochs": 30, "checkpointEvery": 100}, "checkpointEvery", "are 210 steps.*such as 70; or leave it"),
    ],
)
def test_epochs_that_do_not_fit_are_refused_with_what_would(fields: dict[str, Any], named: str, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says) as refused:
        kept(**fields)
    assert list(refused.value.fields) == [named]


def test_the_least_epochs_that_are_named_fit() -> None:
    for batch_size, least in ((1, 6), (4, 22), (64, 348)):
        assert 800 // kept(keepEveryEpochs=least, batchSize=batch_size)[0] <= 20
        with pytest.raises(InvalidRequest, match=f"must be {least} or more"):
            kept(keepEveryEpochs=least - 1, batchSize=batch_size)


def test_a_complete_request_counts_epochs_in_steps_once_the_photos_are_known() -> None:
    request = msgspec.convert(
        {"dataSetId": str(UUID(int=1)), "classWord": "mug", "keepEveryEpochs": 30}, TrainingRequest
    )

    def complete(photos: Sequence[DataSetImage]) -> dict[str, Any]:
        recipe = resolve(request, data_set_hash="d" * 64, base=BASE, seed=5, photos=photos).recipe
        whole = complete_request(request, recipe)
        again = msgspec.convert(whole, TrainingRequest)
        assert resolve(again, data_set_hash="d" * 64, base=BASE, seed=5, photos=PHOTOS).recipe.keep_every == 210
        return whole

    names = ("keepEvery", "keepEveryEpochs", "checkpointEvery")
    assert [complete(PHOTOS).get(name) for name in names] == [210, None, 105]
    assert [complete([]).get(name) for name in names] == [None, 30, None]


def test_rules_have_a_factor_up_to_each_step_and_one_for_the_rest() -> None:
    assert piecewise_rules("1:100,0.1:200,0.01") == (((100, 1.0), (200, 0.1)), 0.01)
    assert piecewise_rules("0.5") == ((), 0.5)
    for wrong in ("", "1:100", "one:100,1", "1:0.5,1", "-1:5,1", "1:5,nan"):
        with pytest.raises(ValueError, match="for example"):
            piecewise_rules(wrong)
