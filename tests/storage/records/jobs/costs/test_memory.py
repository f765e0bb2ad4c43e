"""What a training needs, held against what is known of Stable Diffusion 1.5 and XL on real cards."""

from __future__ import annotations

from itertools import product
from typing import Any

import msgspec
import pytest

from storage.records.jobs.choices import ModelFamily, TrainingMethod, TrainingOptimizer, TrainingPreset
from storage.records.jobs.costs.advice import cards_that_fit, savings, savings_in_words
from storage.records.jobs.costs.disk import estimate_disk
from storage.records.jobs.costs.memory import MemoryEstimate, estimate_memory
from storage.records.jobs.costs.sizes import ModelSizes
from storage.records.jobs.presets import PRESETS
from storage.records.jobs.training import TrainingRecipe
from tests.flows.training.tiny import recipe
from tests.storage.records.jobs.costs.shapes import sd15, sdxl

BASES = {ModelFamily.SD1: (sd15, 512), ModelFamily.SDXL: (sdxl, 1024)}


def wanted(**fields: Any) -> TrainingRecipe:
    return recipe(**{"resolution": 512, "token_learning_rate": 0.0, **fields})


def test_stable_diffusion_at_512_pixels_comes_out_as_on_a_card() -> None:
    """4.3 GB of weights, 3.4 of gradients, 6.9 of moments, 3.7 of activations for 1 + 1 images: 18.3 if all existed at
    once, as it does when gradients accumulate; a checkpoint has 10.3, with the text encoder 11.8."""
    needs = estimate_memory(sd15(), wanted())
    parts = [needs.weights, needs.gradients, needs.optimizer, needs.activations, needs.peak]
    assert [round(part / 1e9, 1) for part in parts] == [4.3, 3.4, 6.9, 3.7, 15.7]
    assert round(estimate_memory(sd15(), wanted(accumulation=2)).peak / 1e9, 1) == 18.3
    assert (needs.trained_parameters, needs.total_parameters) == (859_520_964, 1_066_235_307)
    assert round(estimate_disk(sd15(), wanted()).checkpoint / 1e9, 1) == 10.3
    assert round(estimate_disk(sd15(), wanted(text_encoder_learning_rate=1e-6)).checkpoint / 1e9, 1) == 11.8


@pytest.mark.parametrize(
    ("fields", "changed"),
    [
        ({"split_backward": True}, {"activations"}),
        ({"batch_size": 2}, {"activations"}),
        ({"gradient_checkpointing": True}, {"activations"}),
        ({"precision": "bf16"}, {"activations", "half_precision_copies"}),
        ({"ema_decay": 0.999}, {"ema"}),
        ({"optimizer": "adamw_8bit"}, {"optimizer"}),
        ({"optimizer": "prodigy"}, {"optimizer", "step"}),
        ({"optimizer": "an optimizer of a later release"}, set[str]()),
        ({"accumulation": 8}, set[str]()),
        ({"train_only": "unet.*attn2*"}, {"gradients", "optimizer", "trained_parameters"}),
    ],
)
def test_each_setting_changes_its_own_part(fields: dict[str, Any], changed: set[str]) -> None:
    before, after = estimate_memory(sd15(), wanted()), estimate_memory(sd15(), wanted(**fields))
    names = set(MemoryEstimate.__struct_fields__) - {"not_concurrent"}  # which depends on several
    assert {name for name in names if getattr(before, name) != getattr(after, name)} == changed


def test_what_stays_of_photos_class_images_and_prompts_is_counted() -> None:
    """At 1,024 pixels mean and deviation of a picture's latent are half a megabyte, Stable Diffusion XL's vectors of a
    prompt 0.6."""
    plain: dict[str, Any] = {"resolution": 1024, "prior_loss_weight": 0.0}
    alone = estimate_memory(sdxl(), wanted(**plain))
    assert alone.encodings == 0
    with_class = estimate_memory(sdxl(), wanted(**plain | {"prior_loss_weight": 1.0, "regularization_count": 2000}))
    assert with_class.encodings == 2000 * 2 * 4 * 128 * 128 * 4
    crops = wanted(**plain, random_crop=True, cached_crops=4, random_flip=True)
    learned = estimate_memory(sdxl(), crops, photos=500, prompts=300)
    assert learned.encodings == 500 * 8 * 2 * 4 * 128 * 128 * 4 + 300 * 77 * (768 + 1280) * 4
    assert learned.peak == estimate_memory(sdxl(), crops).peak + learned.encodings
    texts = msgspec.structs.replace(crops, text_encoder_learning_rate=1e-6)
    assert estimate_memory(sdxl(), texts, photos=500, prompts=300).encodings == 500 * 8 * 2 * 4 * 128 * 128 * 4
    for one in savings(sdxl(), crops, learned):
        assert one.saved_bytes < learned.peak - learned.encodings


def test_drawing_counts_where_it_needs_more_than_the_steps() -> None:
    """A decoder of Stable Diffusion XL has 3.2 GB of an image of 1,024 pixels, checkpointed steps of an adapter 0.9."""
    small = {"gradient_checkpointing": True, "split_backward": True, "precision": "bf16"}
    needs = needs_of(ModelFamily.SDXL, TrainingMethod.LORA, small)
    assert round(needs.drawing / 1e9, 1) == 3.2
    assert needs.peak == needs.weights + needs.adapters + needs.optimizer + needs.encodings + needs.drawing
    assert estimate_memory(sd15(), wanted()).drawing < estimate_memory(sd15(), wanted()).activations


def test_a_base_in_16_bits_takes_half_and_has_no_other_copies() -> None:
    """Of Stable Diffusion XL 6.8 GB of UNet and text encoders, 0.3 of the VAE in float32; while a layer is computed in
    float32, its own weights once more."""
    fields = {"precision": "bf16", "split_backward": True}
    whole = needs_of(ModelFamily.SDXL, TrainingMethod.LORA, fields)
    half = needs_of(ModelFamily.SDXL, TrainingMethod.LORA, {**fields, "frozen_precision": "bf16"})
    assert [round(one.weights / 1e9, 1) for one in (whole, half)] == [13.9, 7.1]
    assert [round(one.half_precision_copies / 1e9, 2) for one in (whole, half)] == [5.18, 0.05]
    plain = needs_of(ModelFamily.SDXL, TrainingMethod.LORA, {"frozen_precision": "bf16"})
    assert plain.half_precision_copies == 4 * 1280 * 2560 * 9
    assert plain.weights == half.weights


def test_an_adapter_trains_what_peft_would_make_of_it() -> None:
    """Rank 16 on the attentions of Stable Diffusion 1.5 has 3,188,736 parameters in the UNet, as diffusers' example."""
    needs = estimate_memory(sd15(), wanted(method="lora", lora_rank=16))
    assert needs.trained_parameters == 3_188_736
    assert estimate_memory(sd15(), wanted(method="lora", lora_rank=32)).trained_parameters == 2 * 3_188_736


def test_what_helps_is_named_with_what_it_saves() -> None:
    found = savings(sd15(), wanted(), estimate_memory(sd15(), wanted()))
    assert [one.change for one in found] == [
        "gradientCheckpointing: true",
        "optimizer: adamw_8bit",
        "method: lora",
    ]
    assert "optimizer: adamw_8bit (saves 4.8 GiB)" in savings_in_words(found)
    adapters = wanted(method="lora")
    [split, *_] = savings(sd15(), adapters, estimate_memory(sd15(), adapters))
    assert split.change == "splitBackward: true"
    fields = {"method": "lora", "split_backward": True, "gradient_checkpointing": True, "optimizer": "adamw_8bit"}
    nearly = wanted(**fields, precision="bf16")
    [half] = savings(sd15(), nearly, estimate_memory(sd15(), nearly))
    assert half.change == "frozenPrecision: bf16"
    small = wanted(**fields, precision="bf16", frozen_precision="bf16")
    assert savings_in_words(savings(sd15(), small, estimate_memory(sd15(), small))) == (
        "Use a smaller base model, or a machine with more memory."
    )


def needs_of(family: ModelFamily, method: TrainingMethod, fields: Any) -> MemoryEstimate:
    make, side = BASES[family]
    sizes: ModelSizes = make()
    asked = wanted(family=family.value, resolution=side, method=method.value, **fields)
    return estimate_memory(sizes, asked)


@pytest.mark.parametrize("preset", [one for one in TrainingPreset if one.card_gib])
@pytest.mark.parametrize("method", list(TrainingMethod))
@pytest.mark.parametrize("family", list(BASES))
def test_every_preset_fits_its_card_and_what_is_missing_does_not(
    preset: TrainingPreset, family: ModelFamily, method: TrainingMethod
) -> None:
    card = f"{preset.card_gib} GB"
    fields = PRESETS[preset].get((family, method))
    if fields is not None:
        assert card in cards_that_fit(needs_of(family, method, fields))
        return
    frugal = {"gradient_checkpointing": True, "split_backward": True, "batch_size": 1}
    for optimizer in (TrainingOptimizer.ADAMW, TrainingOptimizer.ADAMW_8BIT):
        for precision, held in product(("fp32", "bf16"), ("fp32", "bf16") if method == "lora" else ("fp32",)):
            least = {**frugal, "optimizer": optimizer.value, "precision": precision, "frozen_precision": held}
            assert card not in cards_that_fit(needs_of(family, method, least)), f"give it a row, {least}"


@pytest.mark.parametrize("preset", [TrainingPreset.GPU_12GB, TrainingPreset.GPU_16GB])
def test_a_moving_average_does_not_fit_where_a_preset_refuses_it(preset: TrainingPreset) -> None:
    fields = {**PRESETS[preset][ModelFamily.SD1, TrainingMethod.FULL], "ema_decay": 0.999}
    assert f"{preset.card_gib} GB" not in cards_that_fit(needs_of(ModelFamily.SD1, TrainingMethod.FULL, fields))
    plain = {**PRESETS[TrainingPreset.GPU_24GB][ModelFamily.SD1, TrainingMethod.FULL], "ema_decay": 0.999}
    assert "24 GB" in cards_that_fit(needs_of(ModelFamily.SD1, TrainingMethod.FULL, plain))


def test_frozen_weights_have_a_copy_in_16_bits_where_gradients_pass_through_them() -> None:
    """Of the UNet beside a few trained tensors as beside adapters; of a text encoder once something trains before or
    in it; none where checkpointing casts again what it computes again."""
    few = {"precision": "bf16", "train_only": "unet.*attn2*"}
    whole = estimate_memory(sd15(), wanted(precision="bf16")).half_precision_copies
    assert estimate_memory(sd15(), wanted(**few)).half_precision_copies == whole
    assert estimate_memory(sd15(), wanted(**few, gradient_checkpointing=True)).half_precision_copies < whole / 5
    adapters = {"precision": "bf16", "method": "lora"}
    unet = estimate_memory(sd15(), wanted(**adapters))
    both = estimate_memory(sd15(), wanted(**adapters, text_encoder_learning_rate=1e-5))
    more = both.half_precision_copies - unet.half_precision_copies
    text = sd15().parameters("text_encoder")
    assert more == 2 * (text + both.trained_parameters - unet.trained_parameters)
    token = estimate_memory(sd15(), wanted(precision="bf16", token_learning_rate=1e-3))
    assert token.half_precision_copies == whole + 2 * (text + 768)


def test_cards_are_those_with_room_for_the_estimates_own_error() -> None:
    assert cards_that_fit(estimate_memory(sd15(), wanted())) == ("24 GB",)
    small = estimate_memory(sd15(), wanted(method="lora", split_backward=True, gradient_checkpointing=True))
    assert cards_that_fit(small) == ("8 GB", "12 GB", "16 GB", "24 GB")
