"""A request resolves to a recipe in which nothing is open, and equal recipes have one fingerprint."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import (
    BaseModelFacts,
    TrainingDefaults,
    TrainingJobRequest,
    TrainingRequest,
    regularization_recipe,
    resolve,
)

DATA_SET = UUID(int=7)
BASE = BaseModelFacts(
    name="starter",
    folder_hash="b" * 64,
    family="sd1",
    resolution=64,
    class_words=("mug", "car"),
    training=TrainingDefaults(steps=300, learning_rate=1e-4, identifier="sks"),
    sampler=SamplerSettings(steps=25, guidance_scale=3.0),
    evaluation_scenes=("on the beach",),
)


def resolved(**fields: Any) -> TrainingJobRequest:
    request = TrainingRequest(data_set_id=DATA_SET, class_word="mug", **fields)
    return resolve(request, data_set_hash="d" * 64, base=BASE, seed=5)


def test_what_is_left_out_takes_the_base_models_default() -> None:
    recipe = resolved(learning_rate=2e-4).recipe
    assert (recipe.steps, recipe.learning_rate, recipe.identifier, recipe.seed) == (300, 2e-4, "sks", 5)
    assert recipe.instance_prompt == "a photo of a sks mug"
    assert recipe.class_prompt == "a photo of a mug"


def test_zero_is_a_choice_and_not_a_missing_value() -> None:
    assert resolved(prior_loss_weight=0.0, seed=0).recipe.prior_loss_weight == 0.0
    assert resolved(seed=0).recipe.seed == 0


def test_names_that_change_no_number_change_no_fingerprint() -> None:
    assert resolved(name="one").recipe.fingerprint() == resolved(name="two").recipe.fingerprint()
    assert resolved().recipe.fingerprint() != resolved(steps=301).recipe.fingerprint()


def test_a_recipe_survives_the_database() -> None:
    job_request = resolved()
    again = msgspec.convert(msgspec.json.decode(msgspec.json.encode(job_request)), TrainingJobRequest)
    assert again == job_request
    assert again.recipe.fingerprint() == job_request.recipe.fingerprint()


def test_jobs_that_differ_only_in_their_training_share_a_regularization_set() -> None:
    one, two = resolved(seed=1, steps=10).recipe, resolved(seed=2, learning_rate=1e-3).recipe
    assert regularization_recipe(one).fingerprint() == regularization_recipe(two).fingerprint()
    fewer = resolved(regularization_count=3).recipe
    assert regularization_recipe(fewer).fingerprint() != regularization_recipe(one).fingerprint()


@pytest.mark.parametrize("word", ["spaceship", "mug; drop table", "m" * 64, " mug", "Mug mug "])
def test_a_class_word_that_does_not_fit_is_refused_with_what_to_do(word: str) -> None:
    request = TrainingRequest(data_set_id=uuid4(), class_word=word)
    with pytest.raises(InvalidRequest, match="classWord") as caught:
        resolve(request, data_set_hash="d" * 64, base=BASE, seed=1)
    assert any(hint in caught.value.fields["classWord"] for hint in ("for example", "it knows: mug, car"))


def test_limits_hold_where_json_comes_in() -> None:
    body = {"dataSetId": str(DATA_SET), "classWord": "mug"}
    assert msgspec.convert(body, TrainingRequest, strict=False).class_word == "mug"
    for wrong in ({"steps": -1}, {"steps": 10**9}, {"classWord": "m" * 5000}, {"classWord": ""}, {"surprise": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**body, **wrong}, TrainingRequest, strict=False)
