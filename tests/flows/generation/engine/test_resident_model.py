"""What a resident model keeps beside its weights, how much that is, and what it lets go."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import permutations
from pathlib import Path

import pytest
import torch

from flows.diffusion.families.protocol import Components, Conditioning
from flows.generation.engine import resident_model
from flows.generation.engine.resident_model import ResidentModel
from flows.training.adapters.layers import AdapterForm, adapter_metadata, adapter_tensors, inject, remove, target_layers
from flows.training.tensor_files import write_tensors
from storage.errors import WeightsRefused
from storage.records.generation.drawings import DrawnAdapter
from tests.flows.generation.engine.bench import LocalFiles
from tests.flows.training.adapters.adapters import lora_recipe
from tests.flows.training.tiny import FAMILY

LAYER = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
NAMES = ("one", "two", "three", "four")
TEXT = torch.zeros(1, 100)
"""Four hundred bytes."""


@pytest.fixture(scope="module")
def files(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> LocalFiles:
    """Adapters of a few layers, and one of none."""
    folder, form = tmp_path_factory.mktemp("adapters"), AdapterForm(rank=2, alpha=4.0)
    components = FAMILY.load(tiny_model)
    layers = target_layers("unet", components.unet, lora_recipe(train_only="unet.mid_block.*attn2.to_*"))
    inject(components.unet, form, layers)
    tensors = adapter_tensors(components)
    facts = {"lora_adapter_metadata": adapter_metadata(tensors, form)}
    for place, name in enumerate(NAMES, 1):
        write_tensors(folder / name, {key: one + place / 7 for key, one in tensors.items()}, facts)
    write_tensors(folder / "bad", dict(list(tensors.items())[1:]), facts)
    remove(components.unet, "default")
    return LocalFiles({}, {name: folder / name for name in (*NAMES, "bad")})


@pytest.fixture
def model(components: Components) -> ResidentModel:
    return ResidentModel(FAMILY, components)


def used(*names: str) -> tuple[DrawnAdapter, ...]:
    return tuple(DrawnAdapter(version_id=7, sha256=name) for name in names)


def bytes_of(model: ResidentModel) -> int:
    """Counted in the weights themselves."""
    seen = {id(one): one for module in model.components.modules.values() for one in module.parameters()}
    return sum(one.nbytes for one in seen.values())


def put(model: ResidentModel, files: LocalFiles, names: Iterable[str]) -> None:
    for name in names:
        model.put_beside(used(name), files)
        model.switch(used(name))


def test_the_size_is_that_of_the_weights_that_are_there(model: ResidentModel, files: LocalFiles) -> None:
    plain = model.size
    assert plain == bytes_of(model)
    put(model, files, NAMES[:2])
    assert plain < model.size == bytes_of(model)
    before = model.size
    with pytest.raises(WeightsRefused):
        model.put_beside(used("bad"), files)
    assert model.size == bytes_of(model) == before


def test_of_too_many_adapters_the_one_used_longest_ago_goes(
    model: ResidentModel, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_model, "MOST_ADAPTERS", 2)
    put(model, files, ["one", "two", "one", "three"])
    size = model.size
    model.switch(used("one"))
    with pytest.raises(KeyError):
        model.switch(used("two"))
    # A picture that has begun with it goes on: it is put beside the model again.
    put(model, files, ["two"])
    assert model.size == size == bytes_of(model)


def test_adapters_take_no_more_than_their_share(
    model: ResidentModel, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = model.size
    put(model, files, ["one"])
    one = model.size - plain
    # Files are larger than what is in them, by their headers.
    room = one + files.adapters["one"].stat().st_size
    monkeypatch.setattr(resident_model, "ADAPTERS_SHARE", room / plain)
    put(model, files, NAMES)
    assert model.size == bytes_of(model) == plain + 2 * one


def test_what_is_drawn_with_together_stays_whatever_the_limit(
    model: ResidentModel, files: LocalFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident_model, "MOST_ADAPTERS", 1)
    model.put_beside(used(*NAMES), files)
    model.switch(used(*NAMES))
    assert model.size == bytes_of(model)


def test_the_order_of_adapters_changes_no_bit(model: ResidentModel, files: LocalFiles) -> None:
    width = model.components.unet.get_parameter(f"{LAYER}.weight").shape[1]
    given = torch.randn(8, width, generator=torch.Generator().manual_seed(1))
    model.put_beside(used(*NAMES), files)
    results: list[torch.Tensor] = []
    for names in permutations(NAMES):
        model.switch(used(*names))
        results.append(model.components.unet.get_submodule(LAYER)(given))
    assert all(torch.equal(one, results[0]) for one in results)


def test_encoded_texts_are_bounded_by_their_bytes(model: ResidentModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident_model, "ENCODED_BYTES", 2 * TEXT.nbytes)
    plain, encoded = model.size, list[str]()

    def text(name: str, times: int = 1) -> None:
        def encode() -> Conditioning:
            encoded.append(name)
            return Conditioning({"text": TEXT.repeat(times, 1)})

        model.encode((name,), encode)

    for name in ("a", "b", "a", "c", "a", "b"):
        text(name)
    assert encoded == ["a", "b", "c", "b"]
    assert model.size == plain + 2 * TEXT.nbytes
    text("longer than all may be", 3)
    text("a")
    assert encoded[4:] == ["longer than all may be"]
