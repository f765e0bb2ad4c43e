"""Images of a version whose base was held in 16 bits are drawn beside a base that is held alike: the samples' images,
in the memory that the training's card has."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.diffusion import registered_pipeline
from flows.diffusion.memory import bytes_of_parameters
from flows.diffusion.sampled_sets import png
from flows.diffusion.sampler import draw_images
from flows.training.adapters.loading import load_adapter
from storage.records.generation.drawings import Drawing, DrawnAdapter, DrawnImage, DrawnModel
from storage.records.jobs.sampled_sets import SamplerSettings
from tests.flows.generation.engine.bench import LocalFiles, ask, running
from tests.flows.training.adapters.adapters import lora_recipe, trained_adapter
from tests.flows.training.tiny import FAMILY

PROMPT = "a photo of a sks mug"
SAMPLER = SamplerSettings(steps=2, guidance_scale=3.0)
BF16 = "bfloat16"
ADAPTER = "a" * 64


@pytest.fixture(scope="module")
def adapter(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that was trained beside a base in bf16."""
    torch.set_num_threads(1)
    wanted = lora_recipe(steps=1, frozen_precision="bf16", lora_conv=True)
    _, made = trained_adapter(tiny_model, tmp_path_factory.mktemp("work"), wanted)
    [file] = made.folder.values()
    return file


def drawn(folder: Path, adapter: Path | None, held_in: str) -> bytes:
    """What a request for it draws."""
    source = LocalFiles({1: folder}, adapters={ADAPTER: adapter} if adapter else {})
    model = DrawnModel(version_id=1, family="sd1", files={"unet": ADAPTER}, held_in=held_in)
    asked = Drawing(
        model=model,
        adapters=(DrawnAdapter(version_id=2, sha256=ADAPTER),) if adapter else (),
        images=(DrawnImage(prompt=PROMPT, seed=3),),
        steps=SAMPLER.steps,
        guidance_scale=SAMPLER.guidance_scale,
        width=64,
        height=64,
        exact=True,
    )
    with running(source) as engine:
        [pixels] = ask(engine, asked).pictures().values()
    return png(Image.fromarray(pixels))


def of_the_training(folder: Path, adapter: Path) -> bytes:
    """What the job's own parts draw."""
    components = FAMILY.load(folder, dtype=BF16)
    load_adapter(components, adapter)
    [image] = draw_images(FAMILY, components, [PROMPT], [3], SAMPLER)
    return png(image)


def registered(folder: Path, adapter: Path | None, held_in: str, place: Path) -> registered_pipeline.RegisteredPipeline:
    """What MLflow loads of an entry in its registry."""
    files: dict[str, str] = {}
    for file in (file for file in folder.rglob("*") if file.is_file()):
        files[str(file.relative_to(folder))] = sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        blob = place / "blobs" / sha256[:2] / sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, blob)
    facts = {"files": files, "resolution": 64, "held_in": held_in}
    if adapter is not None:
        (place / "weights").mkdir(parents=True)
        shutil.copyfile(adapter, place / "weights" / adapter.name)
        facts["adapter"] = f"weights/{adapter.name}"
    (place / "data").mkdir(parents=True)
    (place / "data" / "model.json").write_text(json.dumps(facts))
    blobs = {"blobs": (place / "blobs").as_uri(), "device": "cpu"}
    return registered_pipeline._load_pyfunc(str(place / "data" / "model.json"), blobs)


def test_a_request_draws_what_the_training_has_shown(tiny_model: Path, adapter: Path) -> None:
    assert drawn(tiny_model, adapter, BF16) == of_the_training(tiny_model, adapter)
    assert drawn(tiny_model, adapter, BF16) != drawn(tiny_model, adapter, "float32")


def test_mlflows_entry_draws_the_same_in_half_the_memory(tiny_model: Path, adapter: Path, tmp_path: Path) -> None:
    model = registered(tiny_model, adapter, BF16, tmp_path)
    asked = {"seed": 3, "num_inference_steps": SAMPLER.steps, "guidance_scale": SAMPLER.guidance_scale}
    [image] = model.predict({"prompt": [PROMPT]}, asked)
    assert image == drawn(tiny_model, adapter, BF16)
    unet = model.get_raw_model().unet
    kinds = {name.rpartition("lora_")[1]: parameter.dtype for name, parameter in unet.named_parameters()}
    assert kinds["lora_"] is torch.float32
    weight = unet.get_submodule("down_blocks.0.resnets.0.conv1.base_layer").weight
    assert weight.dtype is torch.bfloat16, "also behind a pass"
    half, whole = (registered(tiny_model, None, kind, tmp_path / kind) for kind in (BF16, "float32"))
    sizes = [bytes_of_parameters(one.get_raw_model().unet) for one in (half, whole)]
    assert sizes[0] < 0.55 * sizes[1]
