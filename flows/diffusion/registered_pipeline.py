"""A model of MLflow's registry at work: diffusers draws what the platform draws, from bytes that the blob store has.

A copy of this file is in each registered model, and MLflow imports it there. So it imports nothing of this project:
who loads the model needs the libraries of its requirements.txt, and access to the blob store.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import fsspec
import torch
from diffusers.hooks.layerwise_casting import apply_layerwise_casting
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from fsspec.implementations.local import LocalFileSystem
from mlflow.exceptions import MlflowException
from torch import nn

CHUNK = 1024 * 1024
_HELD = {"bfloat16": torch.bfloat16, "float16": torch.float16}


class RegisteredPipeline:
    """Draws an image for each prompt, as the platform does: DDIM without noise, each image alone, from its own seed."""

    def __init__(self, pipeline: Any, resolution: int) -> None:
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
        pipeline.set_progress_bar_config(disable=True)
        self.pipeline, self._resolution = pipeline, resolution

    def predict(self, data: Any, params: Mapping[str, Any] | None = None) -> list[bytes]:
        """PNG bytes, one image for each value of the column `prompt` of a pandas frame; row k has the seed plus k."""
        given = dict(params or {})
        seed = int(given.pop("seed", 0))
        prompts: list[str] = []
        for cell in data["prompt"]:
            # MLflow puts a list of prompts into one cell.
            prompts += cell if isinstance(cell, list) else [str(cell)]
        return [self._draw(prompt, seed + row, given) for row, prompt in enumerate(prompts)]

    def get_raw_model(self) -> Any:
        """The diffusers pipeline, for whoever wants more than `predict` does."""
        return self.pipeline

    def _draw(self, prompt: str, seed: int, settings: Mapping[str, Any]) -> bytes:
        generator = torch.Generator("cpu").manual_seed(seed)
        sides = {"height": self._resolution, "width": self._resolution}
        [image] = self.pipeline(prompt=prompt, generator=generator, **sides, **settings).images
        written = io.BytesIO()
        image.save(written, "PNG")
        return written.getvalue()


def _load_pyfunc(  # pyright: ignore[reportUnusedFunction] - MLflow finds it by this name
    path: str, model_config: Mapping[str, Any] | None = None
) -> RegisteredPipeline:
    """What MLflow calls. `path` is the model's JSON file: the hash of each file by its path, the resolution, and the
    element type in which the weights were held when it was trained.

    model_config: `blobs` is the fsspec URL of the blob store, `device` a torch device or "auto".
    """
    facts = json.loads(Path(path).read_text())
    given = {"blobs": "", "device": "auto", **(model_config or {})}
    device = str(given["device"])
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        _fetch(facts["files"], str(given["blobs"]), Path(folder))
        options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True, "local_files_only": True}
        pipeline: Any = DiffusionPipeline.from_pretrained(folder, **options)
        held = _HELD.get(facts.get("held_in", ""))
        if held is not None:
            _round(pipeline, held)
        if facts.get("adapter"):
            adapter = Path(path).parent.parent / facts["adapter"]
            pipeline.load_lora_weights(str(adapter.parent), weight_name=adapter.name)
        if held is not None:
            for module in _held_parts(pipeline):
                # Not the adapter, which was trained in float32. Nor embeddings: by their element type a pipeline takes
                # its text encoder to compute in it. Norms are cast by none.
                apply_layerwise_casting(module, held, torch.float32, ("lora_",), (nn.Embedding,))
    return RegisteredPipeline(pipeline.to(device), int(facts["resolution"]))


def _held_parts(pipeline: Any) -> list[nn.Module]:
    return [part for name, part in pipeline.components.items() if part and name.startswith(("unet", "text_encoder"))]


def _round(pipeline: Any, held: torch.dtype) -> None:
    """Round the weights as the training did: beside a base that is not rounded an adapter draws otherwise."""
    for module in _held_parts(pipeline):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(held).float()


def _fetch(files: Mapping[str, str], blobs: str, folder: Path) -> None:
    """A folder with these files, each compared with its SHA-256; those of a local store are linked, not copied."""
    filesystem, root = cast(tuple[Any, str], cast(Any, fsspec).core.url_to_fs(blobs))
    for path, sha256 in files.items():
        source, target = f"{root.rstrip('/')}/{sha256[:2]}/{sha256}", folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(filesystem, LocalFileSystem):
                target.symlink_to(source)
            else:
                filesystem.get_file(source, str(target))
            found = _sha256(target)
        except OSError as error:
            raise MlflowException(
                f"{path} of this model ({sha256}) is not in the blob store {blobs}: {type(error).__name__}. Where the "
                "store is at another address here, give it: "
                "mlflow.pyfunc.load_model(uri, model_config={'blobs': 'URL'}). Else the version was deleted."
            ) from error
        if found != sha256:
            raise MlflowException(f"{path} of this model is damaged in the blob store {blobs}: {found}, not {sha256}.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            digest.update(piece)
    return digest.hexdigest()
