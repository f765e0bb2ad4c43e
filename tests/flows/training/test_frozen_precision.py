"""An adapter beside a base in 16 bits: learned as PEFT learns it, resumed byte for byte, exported for every base."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig

from flows.diffusion.families.protocol import Components
from flows.diffusion.half_weights import DTYPES
from flows.diffusion.memory import image_layout, lay_out_weights
from flows.diffusion.sampler import draw_images
from flows.training.adapters.files import DIFFUSERS_FILE
from flows.training.adapters.layers import adapter_parameters, lay_out, layers_of
from flows.training.adapters.loading import load_adapter
from flows.training.callbacks import Watch
from flows.training.methods.frozen import FrozenTensors, FrozenWeightsChanged
from flows.training.methods.lookup import method_named
from flows.training.methods.protocol import parameters_of
from flows.training.module import DreamBoothModule
from flows.training.photos.encodings import EncodingCache
from flows.training.precision import AUTOCAST_DTYPES, checkpoint_activations
from flows.training.tensor_files import bytes_of, read_tensors
from storage.blobs.cached_files import CachedFiles
from storage.errors import JobCannotSucceed
from storage.records.jobs.sampled_sets import SamplerSettings
from storage.records.jobs.training import TrainingRecipe, regularization_recipe
from tests.flows.training.adapters.adapters import drawn, lora_recipe, pipeline_of, trained_adapter, with_components
from tests.flows.training.methods.test_lora import Killed, by_peft
from tests.flows.training.test_module import diffusers_loss
from tests.flows.training.tiny import FAMILY, KeptCheckpoints, loaded, recipe, train, training_images

WIDE = {"lora_dora": True, "lora_conv": True, "lora_targets": "transformer"}


def computing(wanted: TrainingRecipe) -> AbstractContextManager[Any]:
    dtype = AUTOCAST_DTYPES.get(wanted.precision)
    return nullcontext() if dtype is None else torch.autocast("cpu", dtype=dtype)


def rounded(base: Path, wanted: TrainingRecipe) -> Components:
    """diffusers' and transformers' own modules, their weights cast as ours are."""
    parts = loaded(base)
    for module in (parts.unet, parts.text_encoder):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(DTYPES[wanted.held_in]).float()
    return parts


def begun(
    base: Path, wanted: TrainingRecipe, components: Components | None = None
) -> tuple[DreamBoothModule, dict[str, torch.nn.Parameter]]:
    """A training whose adapter has learned something, and the adapter's parameters."""
    torch.set_num_threads(1)
    components = components or loaded(base, wanted.held_in)
    training = method_named("lora").begin(FAMILY, components, wanted)
    module = DreamBoothModule(wanted, FAMILY, components, training, training_images(components, wanted))
    training.begin_step(0)
    parameters = parameters_of(training.groups)
    with torch.no_grad():
        for number, (name, parameter) in enumerate(sorted(parameters.items())):
            if name.endswith("lora_B.weight"):  # zero at first: a step in would be hidden
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number)) * 0.1)
    return module, parameters


def gradients(parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    found = {name: one.grad for name, one in parameters.items() if one.grad is not None}
    assert found.keys() == parameters.keys()
    return found


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    """The largest difference of two gradients, relative to their norm."""
    norm = torch.linalg.vector_norm
    return max(float(norm(ours[name] - theirs[name]) / norm(theirs[name])) for name in ours)


@pytest.mark.parametrize(
    ("precision", "held", "changes", "near"),
    [
        ("fp32", "bf16", {}, 1e-5),
        ("fp32", "bf16", WIDE, 1e-5),
        # The reference repeats a prompt in its batch, and sums what comes back through it in 16 bits.
        ("bf16", "bf16", {}, 2e-2),
        ("bf16", "bf16", {"lora_conv": True, "lora_targets": "transformer"}, 2e-2),
        ("fp16", "fp16", {}, 5e-3),
        ("bf16", "fp16", {}, 2e-2),
    ],
)
def test_a_step_equals_pefts_own_beside_a_base_that_was_cast_alike(
    tiny_model: Path, precision: str, held: str, changes: dict[str, Any], near: float
) -> None:
    wanted = lora_recipe(prior_loss_weight=1.0, batch_size=2, precision=precision, frozen_precision=held, **changes)
    module, parameters = begun(tiny_model, wanted)
    assert {parameter.dtype for parameter in parameters.values()} == {torch.float32}
    theirs = rounded(tiny_model, wanted)
    reference = by_peft(theirs, parameters, wanted.lora_dora)
    # In 16 bits another layout in memory is another rounding.
    lay_out_weights(theirs.unet)
    lay_out(reference.values())
    theirs.unet.register_forward_pre_hook(laid_out)
    draw = module.draw(0)
    with computing(wanted):
        loss, expected = module.loss_of(draw).total, diffusers_loss(theirs, module, draw, 1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    expected.backward()
    assert distance(gradients(parameters), gradients(reference)) <= near


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_every_adapter_of_a_convolution_learns(tiny_model: Path, precision: str) -> None:
    """DoRA's lengths, too; PEFT makes an adapter's layers of the class of the layer that they stand beside."""
    wanted = lora_recipe(precision=precision, frozen_precision=precision, **WIDE)
    module, parameters = begun(tiny_model, wanted)
    with computing(wanted):
        loss = module.loss_of(module.draw(0)).total
    loss.backward()
    assert {name.rpartition(".lora_")[2] for name in parameters} == {"A.weight", "B.weight", "magnitude_vector"}
    assert [name for name, gradient in gradients(parameters).items() if not gradient.any()] == []


def laid_out(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return (given[0].contiguous(memory_format=image_layout(given[0].device)), *given[1:])


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_equals_the_one_beside_float32_weights_of_the_same_values(tiny_model: Path, precision: str) -> None:
    """Bit by bit, so a training is the one on a folder that was rounded before."""
    wanted = lora_recipe(prior_loss_weight=1.0, precision=precision, frozen_precision="bf16")
    steps: list[tuple[torch.Tensor, dict[str, torch.Tensor]]] = []
    for components in (None, rounded(tiny_model, wanted)):
        module, parameters = begun(tiny_model, wanted, components)
        with computing(wanted):
            loss = module.loss_of(module.draw(0)).total
        loss.backward()
        steps.append((loss.detach(), gradients(parameters)))
    (ours, own), (theirs, other) = steps
    assert torch.equal(ours, theirs)
    assert all(torch.equal(own[name], other[name]) for name in own)


def test_a_step_has_the_loss_of_a_unet_that_diffusers_cast_as_a_whole(tiny_model: Path) -> None:
    """As its scripts do it, norms among it."""
    wanted = lora_recipe(
        prior_loss_weight=1.0, batch_size=2, precision="bf16", frozen_precision="bf16", text_encoder_learning_rate=0.0
    )
    module, parameters = begun(tiny_model, wanted)
    theirs = rounded(tiny_model, wanted)
    unet: Any = theirs.unet
    unet.add_adapter(LoraConfig(r=4, lora_alpha=10, target_modules=sorted(layers_of(parameters)["unet"])))
    lay_out_weights(unet.to(torch.bfloat16))
    unet.register_forward_pre_hook(laid_out)
    for name, parameter in adapter_parameters("unet", unet).items():
        parameter.data = parameters[name].detach().clone()
    draw = module.draw(0)
    with computing(wanted):
        loss, expected = module.loss_of(draw).total, diffusers_loss(theirs, module, draw, 1.0)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_recomputed_activations_have_the_same_gradients(tiny_model: Path, precision: str) -> None:
    wanted = lora_recipe(precision=precision, frozen_precision="bf16")
    found: list[dict[str, torch.Tensor]] = []
    for on in (False, True):
        module, parameters = begun(tiny_model, wanted)
        checkpoint_activations(module.components, on)
        with computing(wanted):
            loss = module.loss_of(module.draw(0)).total
        loss.backward()
        found.append(gradients(parameters))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_an_adapter_that_has_learned_nothing_changes_nothing(tiny_model: Path) -> None:
    """DoRA's lengths are those of the weights as they are computed with."""
    wanted = lora_recipe(frozen_precision="bf16", **WIDE)
    plain, adapted = (loaded(tiny_model, wanted.held_in) for _ in range(2))
    method_named("lora").begin(FAMILY, adapted, wanted).finish()
    given = torch.randn(1, 4, 16, 16), torch.tensor([500])
    with torch.no_grad():
        states = [FAMILY.encode_prompts(parts, ["a mug"]) for parts in (plain, adapted)]
        made = [FAMILY.predict(parts, *given, one) for parts, one in zip((plain, adapted), states, strict=True)]
    assert torch.allclose(*made, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bf16", "lora_dropout": 0.3}, {"precision": "fp32", "lora_dora": True, "lora_conv": True}],
)
def test_a_killed_training_goes_on_to_the_same_bytes(tiny_model: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    wanted = lora_recipe(steps=3, checkpoint_every=1, text_encoder_steps=2, frozen_precision="bf16", **changes)
    whole = trained_adapter(tiny_model, tmp_path / "whole", wanted)[1]

    def die(step: int) -> None:
        if step == 2:
            raise Killed

    kept = KeptCheckpoints(tmp_path / "again" / "kept")
    with pytest.raises(Killed):
        train(tiny_model, tmp_path / "again", wanted, kept, Watch(check=die))
    resumed = trained_adapter(tiny_model, tmp_path / "again", wanted)[1]
    assert kept.kept == [1]
    assert resumed.weights.read_bytes() == whole.weights.read_bytes()
    assert {tensor.dtype for tensor in read_tensors(resumed.weights).values()} == {torch.float32}


def test_every_frozen_tensor_is_the_bases_in_its_16_bits(tiny_model: Path, tmp_path: Path) -> None:
    wanted, reported = lora_recipe(steps=2, frozen_precision="bf16"), list[FrozenTensors]()
    train(tiny_model, tmp_path / "one", wanted, KeptCheckpoints(tmp_path / "kept"), Watch(on_frozen=reported.append))
    base = {
        f"{part}.{name}": tensor
        for part, module in loaded(tiny_model).modules.items()
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    assert reported[0].hashes == {name: sha256(name, tensor) for name, tensor in base.items()}

    def meddle(step: int) -> None:
        with torch.no_grad():
            meddled[0].unet.get_parameter("conv_in.weight").mul_(1.01)

    meddled: list[Components] = []
    with pytest.MonkeyPatch.context() as patch:
        original = DreamBoothModule.on_train_start

        def note(module: DreamBoothModule) -> None:
            meddled.append(module.components)
            original(module)

        patch.setattr(DreamBoothModule, "on_train_start", note)
        with pytest.raises(FrozenWeightsChanged, match=r"unet\.conv_in\.weight"):
            train(tiny_model, tmp_path / "two", wanted, KeptCheckpoints(tmp_path / "two"), Watch(check=meddle))


def sha256(name: str, tensor: torch.Tensor) -> str:
    if tensor.is_floating_point() and not name.startswith("vae."):
        tensor = tensor.to(torch.bfloat16)
        layer = name.split(".")[-2]
        tensor = tensor.float() if "norm" in layer else tensor
    return hashlib.sha256(bytes_of(tensor)).hexdigest()


def test_the_exported_adapter_draws_beside_the_bases_own_weights(tiny_model: Path, tmp_path: Path) -> None:
    components, files = trained_adapter(tiny_model, tmp_path, lora_recipe(frozen_precision="bf16", precision="bf16"))
    own = loaded(tiny_model)
    load_adapter(own, files.folder[DIFFUSERS_FILE])
    expected, base = drawn(with_components(tiny_model, own)), drawn(pipeline_of(tiny_model))
    pipeline = pipeline_of(tiny_model)
    pipeline.load_lora_weights(str(files.weights.parent), weight_name=files.weights.name)
    assert np.abs(drawn(pipeline) - expected).max() < 1e-4 < np.abs(base - expected).max()
    sampler, prompts = SamplerSettings(steps=2, guidance_scale=3.0), ["a photo of a sks mug"] * 2
    of_the_job, outside, plain = (
        np.stack([np.asarray(one, float) for one in draw_images(FAMILY, parts, prompts, [3, 4], sampler)])
        for parts in (components, own, loaded(tiny_model))
    )
    assert np.abs(of_the_job - outside).mean() < np.abs(of_the_job - plain).mean() / 5


def test_the_method_full_refuses_it(components: Components) -> None:
    with pytest.raises(JobCannotSucceed, match="full trains no weights in bf16: set frozenPrecision to fp32"):
        method_named("full").begin(FAMILY, components, recipe(frozen_precision="bf16"))


def test_what_is_made_with_weights_in_16_bits_is_never_taken_for_float32s(tiny_model: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    parts = {"vae": "v" * 64, "text_encoder": "t" * 64, "tokenizer": "k" * 64}
    made: list[torch.Tensor] = []
    for precision in ("fp32", "bf16"):
        wanted = lora_recipe(frozen_precision=precision)
        cache = EncodingCache(CachedFiles(tmp_path), parts, FAMILY, wanted)
        components = loaded(tiny_model, wanted.held_in)
        made.append(cache.prompt(components, "a mug").tensors["encoder_hidden_states"])
    assert not torch.equal(*made)
    assert torch.allclose(made[0], made[1], atol=0.05)
    whole, half = (regularization_recipe(lora_recipe(frozen_precision=one)) for one in ("fp32", "bf16"))
    assert (whole.dtype, half.dtype) == ("float32", "bfloat16")
    assert whole.key() != half.key()
