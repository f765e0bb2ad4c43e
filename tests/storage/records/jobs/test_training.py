"""A request resolves to a recipe in which nothing is open, and equal recipes have one fingerprint."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest

from storage.errors import InvalidRequest
from storage.records.jobs.choices import TrainingMethod
from storage.records.jobs.resolved_requests import BaseModelFacts, complete_request, resolve
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import (
    TrainingDefaults,
    TrainingJobRequest,
    TrainingRequest,
    regularization_recipe,
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


def regularization_key(machine: dict[str, Any] | None = None, **fields: Any) -> str:
    recipe = msgspec.structs.replace(resolved(**fields).recipe, **(machine or {}))
    return regularization_recipe(recipe).key()


def test_jobs_that_differ_only_in_their_training_share_a_regularization_set() -> None:
    assert regularization_key(seed=1, steps=10) == regularization_key(seed=2, learning_rate=1e-3)


def test_more_images_another_machine_or_a_patched_library_ask_for_the_same_set() -> None:
    here: dict[str, Any] = {"threads": 2, "device": "cpu", "libraries": {"torch": "2.13.0+cpu", "diffusers": "0.42.1"}}
    key = regularization_key(here)
    assert regularization_key(here, regularization_count=200) == key
    assert regularization_key({**here, "threads": 64}) == key
    assert regularization_key({**here, "libraries": {"torch": "2.13.2", "diffusers": "0.42.3"}}) == key


def test_another_model_picture_or_kind_of_machine_asks_for_another_set() -> None:
    here: dict[str, Any] = {"threads": 2, "device": "cpu", "libraries": {"torch": "2.13.0", "diffusers": "0.42.1"}}
    others = [
        regularization_key(here),
        regularization_key({**here, "device": "NVIDIA H200"}),
        regularization_key({**here, "libraries": {"torch": "2.14.0", "diffusers": "0.42.1"}}),
        regularization_key({**here, "base_model_hash": "c" * 64}),
        regularization_key({**here, "resolution": 128}),
        regularization_key({**here, "sampler": SamplerSettings(steps=26, guidance_scale=3.0)}),
        regularization_key({**here, "class_word": "car"}),
        regularization_key({**here, "frozen_precision": "bf16"}),
    ]
    assert len(set(others)) == len(others)


def test_a_set_of_several_prompts_is_named_by_all_of_them() -> None:
    one = regularization_recipe(resolved(regularization_count=3).recipe)
    mixed = msgspec.structs.replace(one, prompts=("a mug", "a mug", "a car"))
    assert not mixed.extends
    assert mixed.key() != msgspec.structs.replace(mixed, prompts=("a mug", "a car", "a car")).key()
    other_seeds = msgspec.structs.replace(one, seeds=(0, 2, 1))
    assert not other_seeds.extends
    assert other_seeds.key() != one.key()


@pytest.mark.parametrize("word", ["spaceship", "mug; drop table", "m" * 64, " mug", "Mug mug "])
def test_a_class_word_that_does_not_fit_is_refused_with_what_to_do(word: str) -> None:
    request = TrainingRequest(data_set_id=uuid4(), class_word=word)
    with pytest.raises(InvalidRequest, match="classWord") as caught:
        resolve(request, data_set_hash="d" * 64, base=BASE, seed=1)
    assert any(hint in caught.value.fields["classWord"] for hint in ("for example", "it knows: mug, car"))


@pytest.mark.parametrize(
    ("identifier", "class_word", "reason"),
    [
        ("mug", "mug", "'mug' is a word of the class 'mug'"),
        ("Mug", "mug", "'Mug' is a word of the class 'mug'"),
        ("coffee", "coffee mug", "'coffee' is a word of the class"),
        ("sks mug", "mug", "must be one rare word"),
        ("my-mug", "mug", "must be one rare word"),
    ],
)
def test_an_identifier_that_names_no_subject_is_refused(identifier: str, class_word: str, reason: str) -> None:
    request = TrainingRequest(data_set_id=DATA_SET, class_word=class_word, identifier=identifier)
    with pytest.raises(InvalidRequest) as caught:
        resolve(request, data_set_hash="d" * 64, base=msgspec.structs.replace(BASE, class_words=()), seed=1)
    assert reason in caught.value.fields["identifier"]


def test_the_bases_own_identifier_is_refused_where_it_is_the_class() -> None:
    base = msgspec.structs.replace(BASE, class_words=("sks",))
    with pytest.raises(InvalidRequest, match="identifier"):
        resolve(TrainingRequest(data_set_id=DATA_SET, class_word="sks"), data_set_hash="d" * 64, base=base, seed=1)


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"bucketing": True, "bucket_step": 128}, "bucketStep"),
        ({"bucketing": True, "bucket_min_side": 72}, "bucketMinSide"),
        ({"bucketing": True, "bucket_max_side": 56}, "bucketMaxSide"),
        ({"cached_crops": 4}, "cachedCrops"),
    ],
)
def test_shapes_that_the_base_cannot_draw_are_refused_by_field(fields: dict[str, Any], wrong: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        resolved(**fields)
    assert list(caught.value.fields) == [wrong]


def test_limits_hold_where_json_comes_in() -> None:
    body = {"dataSetId": str(DATA_SET), "classWord": "mug"}
    assert msgspec.convert(body, TrainingRequest, strict=False).class_word == "mug"
    for wrong in ({"steps": -1}, {"steps": 10**9}, {"classWord": "m" * 5000}, {"classWord": ""}, {"surprise": 1}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({**body, **wrong}, TrainingRequest, strict=False)


def test_an_adapter_has_rates_of_its_own_and_its_alpha_is_its_rank_unless_it_is_said() -> None:
    recipe = resolved(method=TrainingMethod.LORA, lora_rank=8).recipe
    assert (recipe.learning_rate, recipe.token_learning_rate, recipe.lora_alpha) == (1e-4, 0.0, 8.0)
    said = resolved(method=TrainingMethod.LORA, learning_rate=3e-4, lora_alpha=1.0).recipe
    assert (said.learning_rate, said.lora_rank, said.lora_alpha) == (3e-4, 16, 1.0)
    assert resolved(method=TrainingMethod.LORA).model_name == "sks mug LoRA"
    assert resolved().model_name == "sks mug"


def test_what_another_method_would_not_do_is_refused_by_its_field() -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolved(lora_rank=4, lora_dora=False)
    assert refused.value.fields.keys() == {"loraRank", "loraDora"}
    with pytest.raises(InvalidRequest, match="an adapter's file has no place for rows") as refused:
        resolved(method=TrainingMethod.LORA, token_learning_rate=1e-3)
    assert refused.value.fields.keys() == {"tokenLearningRate"}


def test_steps_of_a_text_encoder_are_refused_where_none_trains() -> None:
    for rate in ({"text_encoder_learning_rate": 1e-6}, {"token_learning_rate": 1e-3}):
        assert resolved(text_encoder_steps=200, **rate).recipe.text_encoder_steps == 200
    assert resolved(text_encoder_steps=0).recipe.text_encoder_steps == 0
    with pytest.raises(InvalidRequest, match="set textEncoderLearningRate or tokenLearningRate above 0") as refused:
        resolved(text_encoder_steps=200)
    assert refused.value.fields.keys() == {"textEncoderSteps"}
    with pytest.raises(InvalidRequest, match="set textEncoderLearningRate above 0, or leave it out"):
        resolved(method=TrainingMethod.LORA, text_encoder_steps=200)


def test_a_complete_request_can_be_asked_for_where_the_base_stops_a_text_encoder() -> None:
    base = msgspec.structs.replace(BASE, training=msgspec.structs.replace(BASE.training, text_encoder_steps=200))
    request = TrainingRequest(data_set_id=DATA_SET, class_word="mug")
    recipe = resolve(request, data_set_hash="d" * 64, base=base, seed=5).recipe
    complete = complete_request(request, recipe)
    again = resolve(msgspec.convert(complete, TrainingRequest), data_set_hash="d" * 64, base=base, seed=5).recipe
    assert again == recipe
