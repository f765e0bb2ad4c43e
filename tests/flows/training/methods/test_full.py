from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flows.diffusion.families.protocol import Components
from flows.training.methods.lookup import method_named
from flows.training.tensor_files import read_tensors
from storage.errors import InvalidRequest
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, recipe, train

PROMPTS = ["a photo of a sks mug", "a photo of a mug"]


def encoded(components: Components) -> torch.Tensor:
    return FAMILY.encode_prompts(components, PROMPTS).tensors["encoder_hidden_states"]


def test_the_vae_never_trains_and_the_text_encoder_only_with_a_rate_of_its_own(components: Components):
    frozen = method_named("full").begin(FAMILY, components, recipe(token_learning_rate=0.0))
    assert [group.name for group in frozen.groups] == ["unet"]
    assert not frozen.trains_text
    assert not any(parameter.requires_grad for parameter in components.vae.parameters())
    assert not any(parameter.requires_grad for parameter in components.text_encoder.parameters())
    frozen.finish()
    both = method_named("full").begin(FAMILY, components, recipe(text_encoder_learning_rate=1e-6))
    assert {group.name: group.learning_rate for group in both.groups} == {
        "unet": 1e-3,
        "text_encoder": 1e-6,
        "identifier": 1e-2,
    }
    assert not any(parameter.requires_grad for parameter in components.vae.parameters())


def test_only_the_identifiers_rows_of_the_table_train(components: Components):
    table = FAMILY.token_embedding(components)
    before = table.weight.detach().clone()
    tokens = FAMILY.identifier_tokens(components, "sks")
    training = method_named("full").begin(FAMILY, components, recipe())
    [rows] = [group for group in training.groups if group.name == "identifier"]
    assert rows.weight_decay == 0.0
    optimizer = torch.optim.SGD(rows.parameters.values(), lr=1.0)
    encoded(components).square().sum().backward()
    assert table.weight.grad is None
    optimizer.step()
    assert training.finish() == {"unet", "text_encoder"}
    others = [row for row in range(len(before)) if row not in tokens]
    assert torch.equal(table.weight[others], before[others])
    assert not torch.equal(table.weight[tokens], before[tokens])


def test_attaching_the_rows_changes_no_prompt_and_finishing_keeps_what_was_learned(components: Components):
    plain = encoded(components).detach()
    training = method_named("full").begin(FAMILY, components, recipe())
    assert torch.equal(encoded(components), plain)
    [rows] = [group.parameters["identifier.rows"] for group in training.groups if group.name == "identifier"]
    with torch.no_grad():
        rows += 0.5
    attached = encoded(components).detach()
    assert not torch.equal(attached[0], plain[0])
    assert torch.equal(attached[1], plain[1])  # the class prompt does not hold the identifier
    training.finish()
    assert torch.equal(encoded(components), attached)


def test_an_unknown_method_is_refused_by_name():
    with pytest.raises(InvalidRequest, match="'dora' is unknown; known are: full, lora"):
        method_named("dora")


@pytest.mark.parametrize(("method", "rates"), [("full", {"token_learning_rate": 1e-2}), ("lora", {})])
def test_the_text_encoder_stands_still_behind_its_last_step(
    tiny_model: Path, tmp_path: Path, method: str, rates: dict[str, float]
) -> None:
    fields = {"method": method, "text_encoder_learning_rate": 1e-3, "token_learning_rate": 0.0, **rates}
    wanted = recipe(**fields, steps=4, text_encoder_steps=2, checkpoint_every=1, prior_loss_weight=0.0)
    kept = KeptCheckpoints(tmp_path / "kept")
    components, _ = train(tiny_model, tmp_path, wanted, kept)
    second, third, last = (read_tensors(kept.folder / f"{step}.safetensors") for step in (2, 3, 4))
    text = [name for name in last if name.startswith(("weights/text_encoder", "weights/identifier"))]
    assert text
    assert all(torch.equal(second[name], tensors[name]) for name in text for tensors in (third, last))
    assert not all(torch.equal(third[name], last[name]) for name in last if name.startswith("weights/unet"))
    assert not components.text_encoder.training

    # The same from a checkpoint behind that step, and from one before it.
    for start in (3, 1):
        for step in range(start + 1, 5):
            (kept.folder / f"{step}.safetensors").unlink()
        train(tiny_model, tmp_path, wanted, kept)
        again = read_tensors(kept.folder / "4.safetensors")
        assert all(torch.equal(again[name], last[name]) for name in last), start
