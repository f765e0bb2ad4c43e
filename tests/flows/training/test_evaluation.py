from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from PIL import Image
from torch import Tensor

from flows.diffusion.families.deferred import is_read
from flows.diffusion.families.protocol import Components
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import draw_images
from flows.runs.liveness import PROCESS
from flows.training.evaluation import (
    Drifts,
    Evaluation,
    base_beside,
    class_accuracy,
    evaluation_recipe,
    measure,
    new_scenes,
    noise_drift,
    noise_drifts,
    numbers_of,
    shows,
    split_images,
    without_undefined,
)
from flows.training.metrics.comparisons import EvaluationImages
from flows.training.metrics.grid import CELL, Row, draw_grid, without_photos
from flows.training.photos.latents import LatentImages, encode_images
from flows.training.photos.random_numbers import generator_for
from storage.records.jobs.sampled_sets import CLASS_IMAGES, SEEDS_PER_SCENE, fingerprint
from tests.flows.training.adapters.adapters import lora_recipe, trained_adapter
from tests.flows.training.tiny import FAMILY, fit_tiny, loaded, pictures, recipe

SCENES = ("on the beach", "in the snow", "at night")


DRIFTS = Drifts(0.25, 0.125)


class ColourJudge:
    """A judge whose verdicts are plain to see: the embedding is the mean colour, the scene is the brightest channel,
    and what is red is a mug."""

    scenes: Sequence[str] = SCENES
    classes: Sequence[str] = ("mug", "lamp", "chair")

    def class_probabilities(self, images: Tensor) -> Tensor:
        return self.scene_probabilities(images)

    def embed(self, images: Tensor) -> Tensor:
        return torch.nn.functional.normalize(images.mean((2, 3)) + 1.0, dim=-1)

    def scene_probabilities(self, images: Tensor) -> Tensor:
        return (images.mean((2, 3)) * 10).softmax(-1)


def flat(*channels: int) -> Tensor:
    """One image for each entry: bright in that channel alone."""
    images = torch.full((len(channels), 3, 8, 8), -1.0)
    for row, channel in enumerate(channels):
        images[row, channel] = 1.0
    return images


def test_the_figures_equal_those_worked_by_hand():
    red, green = flat(0), flat(1)
    photos = torch.cat([red, red])
    tuned = EvaluationImages(torch.cat([red, green]), green)
    base = EvaluationImages(torch.cat([green, green]), green)
    figures = measure(ColourJudge(), photos, SCENES[:2], "mug", base, tuned, DRIFTS)
    assert figures.subject_fidelity == pytest.approx(0.5)
    assert figures.subject_fidelity_base == pytest.approx(0.0)
    assert figures.subject_fidelity_photos == pytest.approx(1.0)
    assert figures.prompt_accuracy == 1.0  # the first picture is red where scene 0 was asked for, the second green
    assert figures.prompt_accuracy_base == 0.5
    assert figures.subject_fidelity_interval == (0.0, 1.0)  # of two pictures, one like the photos and one not at all
    assert figures.prompt_accuracy_interval == (1.0, 1.0)
    assert (figures.class_accuracy, figures.class_accuracy_base) == (0.5, 0.0)
    assert figures.class_similarity == pytest.approx(0.0)
    assert (figures.class_noise_drift, figures.unrelated_noise_drift) == (0.25, 0.125)
    assert msgspec.json.decode(msgspec.json.encode(figures))["images"] == 2


def test_every_number_is_logged_and_both_ends_of_intervals():
    plain = Evaluation(measured_by="x", scenes=("at night",), images=2, photos=1, subject_fidelity=0.5)
    assert numbers_of(plain) == {"subject_fidelity": 0.5}
    measured = msgspec.structs.replace(
        plain,
        subject_fidelity_interval=(0.25, 0.75),
        prompt_accuracy_interval=(0.0, 1.0),
        standard={"dino": 0.5, "dino_low": 0.4},
    )
    assert numbers_of(measured) == {
        "subject_fidelity": 0.5,
        "subject_fidelity_low": 0.25,
        "subject_fidelity_high": 0.75,
        "prompt_accuracy_low": 0.0,
        "prompt_accuracy_high": 1.0,
        "dino": 0.5,
        "dino_low": 0.4,
    }


def test_accuracy_counts_pictures_scene_by_scene():
    probabilities = ColourJudge().scene_probabilities(flat(0, 0, 1, 2))
    assert shows(probabilities, SCENES, (SCENES[0], SCENES[0], SCENES[1], SCENES[1])).tolist() == [1, 1, 1, 0]


def test_class_accuracy_is_of_the_classes_that_a_judge_knows():
    assert class_accuracy(ColourJudge(), flat(0, 1, 0, 0), "mug") == 0.75
    assert class_accuracy(ColourJudge(), flat(0), "teapot") is None


def test_scenes_that_the_photos_show_are_left_out():
    wanted = recipe(evaluation_scenes=("on the beach", "in the snow", "at night", "under water"))
    assert new_scenes(wanted, flat(0, 0, 2), ColourJudge()) == ("in the snow",)
    assert new_scenes(wanted, flat(0), None) == wanted.evaluation_scenes
    grey = torch.zeros(2, 3, 8, 8)  # no scene is likelier than the others together
    assert new_scenes(wanted, grey, ColourJudge()) == SCENES


def test_without_a_judge_the_figures_say_that_they_were_not_measured():
    images = EvaluationImages(flat(0), flat(0))
    figures = measure(None, flat(0), SCENES, "mug", images, images, DRIFTS)
    assert figures.measured_by == "not measured: the base model folder brings no judge"
    assert figures.subject_fidelity is figures.prompt_accuracy is None
    assert figures.class_noise_drift == 0.25
    without_scenes = measure(ColourJudge(), flat(0), (), "mug", images, images, DRIFTS)
    assert without_scenes.measured_by.startswith("not measured: the photos")


def test_a_figure_that_is_no_number_is_absent_and_named():
    nan = float("nan")
    measured = Evaluation(
        measured_by="a judge",
        scenes=SCENES,
        images=4,
        photos=2,
        subject_fidelity=0.5,
        subject_fidelity_interval=(nan, 0.5),
        class_noise_drift=float("inf"),
        standard={"dino": nan, "clip_i": 0.25},
    )
    found, names = without_undefined(measured)
    assert names == ["class_noise_drift", "dino", "subject_fidelity_interval"]
    assert found == msgspec.structs.replace(
        measured, subject_fidelity_interval=None, class_noise_drift=None, standard={"clip_i": 0.25}
    )
    assert without_undefined(found) == (found, [])


def test_the_base_and_the_fine_tune_draw_the_same_prompts_with_the_same_seeds():
    wanted = evaluation_recipe(recipe(seed=1), SCENES)
    assert len(wanted.prompts) == len(wanted.seeds) == 3 * SEEDS_PER_SCENE + CLASS_IMAGES
    assert wanted.prompts[:5] == ("a photo of a sks mug on the beach",) * 4 + ("a photo of a sks mug in the snow",)
    assert wanted.seeds[:5] == (0, 1, 2, 3, 0)
    assert wanted.prompts[-1] == "a photo of a mug"
    assert fingerprint(wanted) == fingerprint(evaluation_recipe(recipe(seed=2, steps=3), SCENES))
    split = split_images(pictures(3 * SEEDS_PER_SCENE + CLASS_IMAGES), 64)
    assert (len(split.subject), len(split.of_class)) == (3 * SEEDS_PER_SCENE, CLASS_IMAGES)


def test_class_drift_is_zero_for_the_base_itself_and_grows_with_the_change(components: Components, tiny_model: Path):
    tuned = loaded(tiny_model)
    latents = encode_images(FAMILY, components, pictures(2), 64)

    def drifts() -> Drifts:
        return noise_drifts(FAMILY, components, tuned, latents, "a photo of a mug")

    times: list[int] = []
    tuned.unet.register_forward_pre_hook(lambda unet, given: times.extend(given[1].tolist()))
    assert drifts() == Drifts(0.0, 0.0)
    # Of the class and of three unrelated prompts, two latents at each of five times.
    assert times == pytest.approx([50, 50, 275, 275, 500, 500, 725, 725, 950, 950] * 4, abs=1)
    with torch.no_grad():
        tuned.unet.get_parameter("conv_out.weight").add_(0.01)
    small = drifts()
    with torch.no_grad():
        tuned.unet.get_parameter("conv_out.weight").add_(0.04)
    large = drifts()
    assert 0 < small.of_class < large.of_class
    assert 0 < small.unrelated < large.unrelated


def test_drift_is_measured_row_by_row_and_equals_one_call_of_all_rows(components: Components, tiny_model: Path):
    tuned = loaded(tiny_model)
    with torch.no_grad():
        tuned.unet.get_parameter("conv_out.weight").add_(0.01)
    latents, prompt, signs = encode_images(FAMILY, components, pictures(2), 64), "a photo of a mug", list[int]()
    calls: list[int] = []
    for parts in (components, tuned):
        parts.unet.register_forward_pre_hook(lambda _, given: calls.append(len(given[0])))
    with PROCESS.heard_by(lambda: signs.append(len(calls))):
        drift = noise_drift(FAMILY, components, tuned, latents, prompt)
    assert calls == [1] * 20
    assert set(range(21)) == set(signs), "a sign behind each call"
    assert drift == pytest.approx(drift_of_one_call(components, tuned, latents, prompt), rel=1e-5)


def drift_of_one_call(base: Components, tuned: Components, images: LatentImages, prompt: str) -> float:
    schedule = base.noise_schedule
    times = torch.linspace(50, 950, 5).long()
    noise = torch.randn((10, *images.mean.shape[1:]), generator=generator_for(0, "drift", 0))
    noisy = schedule.add_noise(images.mean.repeat(5, 1, 1, 1), noise, times.repeat_interleave(2))
    with torch.no_grad():
        after, before = (
            FAMILY.predict(
                parts, noisy, times.repeat_interleave(2), FAMILY.encode_prompts(parts, [prompt]).take([0] * 10)
            )
            for parts in (tuned, base)
        )
    return float((after - before).square().mean())


def test_the_grid_has_a_cell_for_each_picture_and_enlarges_small_ones():
    rows = [Row("photos", pictures(2)), Row("base model", pictures(3)), Row("fine-tuned", pictures(3))]
    grid = draw_grid(SCENES, rows)
    assert grid.width > 3 * CELL
    assert grid.height > 3 * CELL
    assert draw_grid(SCENES, rows).tobytes() == grid.tobytes()
    assert draw_grid((), [Row("photos", pictures(1))]).width > CELL


def tensors_in(components: Components) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": tensor
        for part, module in components.modules.items()
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.mark.parametrize("changes", [{}, {"lora_dora": True, "lora_conv": True, "frozen_precision": "bf16"}])
def test_beside_an_adapter_the_base_takes_no_memory(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = lora_recipe(steps=1, **changes)
    tuned, _ = trained_adapter(tiny_model, tmp_path, wanted)
    own = FAMILY.load(tiny_model, dtype=wanted.held_in)
    with monkeypatch.context() as patch:
        patch.delattr(type(FAMILY), "load")
        base = base_beside(FAMILY, tiny_model, tuned, frozenset({"unet", "text_encoder"}), wanted.held_in)
    found, expected = tensors_in(base), tensors_in(own)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert {id(tensor) for tensor in found.values()} <= {id(tensor) for tensor in tensors_in(tuned).values()}
    drawn = [draw_images(FAMILY, parts, ["a mug"], [0], wanted.sampler)[0] for parts in (base, own, tuned)]
    assert drawn[0].tobytes() == drawn[1].tobytes() != drawn[2].tobytes()


def test_beside_a_whole_model_only_what_changed_is_read(
    tiny_model: Path, components: Components, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = recipe(steps=1, train_only="text_encoder.*", text_encoder_learning_rate=1e-3, token_learning_rate=0.0)
    changed = fit_tiny(components, wanted, tmp_path)
    assert changed == {"text_encoder"}
    loaded: list[Components] = []
    true_load = type(FAMILY).load

    def load(*arguments: Any) -> Components:
        loaded.append(true_load(*arguments))
        return loaded[-1]

    monkeypatch.setattr(type(FAMILY), "load", load)
    base = base_beside(FAMILY, tiny_model, components, changed, "float32")
    assert [name for name, module in loaded[0].modules.items() if is_read(module)] == ["text_encoder"]
    assert {"unet": base.unet, "vae": base.vae} == {"unet": components.unet, "vae": components.vae}
    expected = tensors_in(true_load(FAMILY, tiny_model))
    assert all(torch.equal(tensor, expected[name]) for name, tensor in tensors_in(base).items())


def test_a_grid_without_photos_has_the_other_rows_as_they_were():
    others = [Row("base model", pictures(3)), Row("fine-tuned", pictures(3, "tuned"))]
    kept = {
        colour: Image.open(io.BytesIO(without_photos(png(draw_grid(SCENES, [Row("photos", photos), *others])))))
        for colour, photos in {"red": [Image.new("RGB", (64, 64), "red")] * 3, "none": []}.items()
    }
    assert kept["red"].tobytes() == kept["none"].tobytes()
    assert kept["red"].height > 2 * CELL
