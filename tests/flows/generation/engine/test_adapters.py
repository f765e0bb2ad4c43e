"""Adapters of a resident model: several beside one base, switched on for those who ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from flows.diffusion.sampler import draw_images
from flows.generation.engine.engine import Engine
from flows.training.adapters.loading import load_adapter
from flows.training.tensor_files import read_metadata, read_tensors, write_tensors
from storage.records.generation.drawings import Drawing, DrawnAdapter
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.generation.engine.bench import LocalFiles, ask, drawing, running
from tests.flows.training.adapters.adapters import lora_recipe, trained_adapter
from tests.flows.training.tiny import FAMILY, loaded

PROMPT, STEPS = "a photo of a mug", 3


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A LoRA of UNet and text encoder, a DoRA of other layers, and the DoRA without one of its tensors."""
    torch.set_num_threads(1)
    wanted = {
        "lora": lora_recipe(steps=2, text_encoder_learning_rate=0.3),
        "dora": lora_recipe(steps=1, lora_dora=True, lora_targets="all-linear", lora_rank=2, seed=9),
    }
    found: dict[str, Path] = {}
    for name, recipe in wanted.items():
        _, made = trained_adapter(tiny_model, tmp_path_factory.mktemp("work"), recipe)
        [found[name]] = made.folder.values()
    tensors = dict(read_tensors(found["dora"]))
    # The last one: all others could be put in before it is missed.
    del tensors[max(name for name in tensors if "lora_magnitude_vector" in name)]
    found["damaged"] = found["dora"].with_name("damaged.safetensors")
    write_tensors(found["damaged"], tensors, read_metadata(found["dora"]))
    return found


@pytest.fixture(scope="module")
def engine(tiny_model: Path, adapters: dict[str, Path]) -> Iterator[Engine]:
    with running(LocalFiles({1: tiny_model}, adapters)) as engine:
        yield engine


def asked(*adapters: tuple[str, float]) -> Drawing:
    used = tuple(DrawnAdapter(version_id=7, sha256=name, strength=strength) for name, strength in adapters)
    return drawing(3, adapters=used, steps=STEPS)


def test_each_request_draws_with_the_adapters_that_it_names(engine: Engine, adapters: dict[str, Path]) -> None:
    wanted = [asked(), asked(("lora", 1.0)), asked(("dora", 1.0)), asked(("lora", 1.0), ("dora", 0.5))]
    # All at once, and again in another order: what another request switched on is of no account.
    at_once = [ask(engine, one) for one in (*wanted, *reversed(wanted))]

    pictures = [one.pictures()[0].tobytes() for one in at_once]

    assert pictures[:4] == pictures[:3:-1]
    assert len(set(pictures)) == 4


def test_an_adapter_at_full_strength_is_the_one_that_was_trained(
    engine: Engine, tiny_model: Path, adapters: dict[str, Path]
) -> None:
    for name in ("lora", "dora"):
        file, components = adapters[name], loaded(tiny_model)
        load_adapter(components, file)
        [expected] = draw_images(FAMILY, components, [PROMPT], [3], SamplerSettings(steps=STEPS, guidance_scale=3.0))

        picture = ask(engine, asked((name, 1.0))).pictures()[0]

        assert np.abs(picture.astype(int) - np.asarray(expected, dtype=int)).max() <= 1


@pytest.mark.parametrize("name", ["lora", "dora"])
def test_a_strength_of_nothing_is_no_adapter_and_more_is_more(engine: Engine, name: str) -> None:
    plain, none, half, full = (
        ask(engine, asked(*used)).pictures()[0].astype(int)
        for used in ([], [(name, 0.0)], [(name, 0.5)], [(name, 1.0)])
    )

    assert np.array_equal(none, plain)
    assert 0 < np.abs(half - plain).mean() < np.abs(full - plain).mean()


def test_the_order_of_adapters_is_of_no_account(engine: Engine) -> None:
    one, other = (("lora", 1.0), ("dora", 1.0)), (("dora", 1.0), ("lora", 1.0))

    first, second = (ask(engine, asked(*used)).pictures()[0] for used in (one, other))

    assert np.array_equal(first, second)


def test_an_adapter_that_is_named_twice_is_mixed_in_by_both_strengths(engine: Engine) -> None:
    twice = ask(engine, asked(("lora", 0.25), ("lora", 0.75))).pictures()[0]

    assert np.array_equal(twice, ask(engine, asked(("lora", 1.0))).pictures()[0])


def test_an_adapter_that_is_damaged_is_in_nobodys_pictures(tiny_model: Path, adapters: dict[str, Path]) -> None:
    with running(LocalFiles({1: tiny_model}, adapters)) as engine:
        before = [ask(engine, one).pictures()[0].tobytes() for one in (asked(), asked(("lora", 1.0)))]

        assert "is no whole adapter" in ask(engine, asked(("damaged", 1.0))).failure().reason

        after = [ask(engine, one).pictures()[0].tobytes() for one in (asked(), asked(("lora", 1.0)))]
        assert after == before
        assert ask(engine, asked(("dora", 1.0))).pictures()


def test_an_adapter_that_is_gone_fails_its_request_alone(engine: Engine) -> None:
    gone, fine = ask(engine, asked(("unknown", 1.0))), ask(engine, asked(("lora", 1.0)))

    assert "KeyError" in gone.failure().reason
    assert len(fine.pictures()) == 1
