"""A trained version as a folder that MLflow loads: signature, requirements, and where the bytes are.

The weights of a whole model stay in the blob store alone: the folder names them by their hash, and takes a few
kilobytes. In MLflow's artifacts they would be there twice, gigabytes a version. An adapter, which has some megabytes,
is in the folder too, since `mlflow.diffusers` knows no other way.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlflow.diffusers
from mlflow import pyfunc
from mlflow.models import Model, ModelSignature
from mlflow.types import DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import ColSpec

from storage.records.jobs.sampled_sets import SamplerSettings

LOADER = "flows.diffusion.registered_pipeline"
"""The module that a registered model brings along; not imported here, since it loads torch."""
LIBRARIES = ("mlflow", "torch", "diffusers", "transformers", "accelerate", "safetensors", "fsspec", "pillow")
ADAPTER = "adapter_weights/pytorch_lora_weights.safetensors"
"""Where `mlflow.diffusers` puts an adapter that is one file."""


@dataclass(frozen=True)
class SavedModel:
    """What a registered model says of itself. `files` is a diffusers folder: path inside it to SHA-256. `example` is a
    prompt that it was made for, `held_in` the element type in which its weights were held then.

    adapter: the adapter's file, for a version that is one; `files` are its base's then, and `base_folder` is where this
    machine keeps a copy of them.
    """

    files: Mapping[str, str]
    blobs_url: str
    resolution: int
    sampler: SamplerSettings
    example: str
    held_in: str
    adapter: Path | None = None
    base_folder: str = ""


def signature_of(sampler: SamplerSettings) -> ModelSignature:
    """Prompts in, PNG images out; the parameters by diffusers' names, with the platform's defaults."""
    return ModelSignature(
        inputs=Schema([ColSpec(DataType.string, "prompt")]),
        outputs=Schema([ColSpec(DataType.binary, "image")]),
        params=ParamSchema(
            [
                ParamSpec("seed", DataType.long, 0),
                ParamSpec("num_inference_steps", DataType.long, sampler.steps),
                ParamSpec("guidance_scale", DataType.double, sampler.guidance_scale),
                ParamSpec("negative_prompt", DataType.string, ""),
            ]
        ),
    )


def save_model(saved: SavedModel, target: Path, *, run_id: str | None, model_id: str) -> None:
    """Write the folder `target`. It names the logged model and the tracking run that it belongs to."""
    model = Model(run_id=run_id, model_id=model_id, model_uuid=model_id)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # MLflow 3.17 warns of its own classes when it is first asked for a model.
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        facts = {"files": dict(saved.files), "resolution": saved.resolution, "held_in": saved.held_in}
        data, code = Path(folder) / "model.json", _loader_in(Path(folder))
        data.write_text(json.dumps(facts | ({"adapter": ADAPTER} if saved.adapter else {}), indent=1))
        common: dict[str, Any] = {
            "signature": signature_of(saved.sampler),
            "pip_requirements": requirements_of(saved),
            "input_example": ({"prompt": [saved.example]}, {"seed": 3}),
        }
        loading = {"loader_module": code.stem, "model_config": {"blobs": saved.blobs_url, "device": "auto"}}
        if saved.adapter is None:
            pyfunc.save_model(target, data_path=data, code_paths=[code], mlflow_model=model, **loading, **common)
            return
        mlflow.diffusers.save_model(str(saved.adapter), str(target), saved.base_folder, mlflow_model=model, **common)
        # Its own way to draw takes no seed, and needs the base's folder at one place for ever.
        for file, place in ((data, "data"), (code, "code")):
            (target / place).mkdir()
            shutil.copyfile(file, target / place / file.name)
        environments = {"conda_env": "conda.yaml", "python_env": "python_env.yaml"}
        pyfunc.add_to_model(model, data=f"data/{data.name}", code="code", **loading, **environments)
        model.save(target / "MLmodel")


def requirements_of(saved: SavedModel) -> list[str]:
    """What has to be installed where the model is loaded, in this process's versions."""
    scheme = saved.blobs_url.partition("://")[0]
    more = (("peft",) if saved.adapter else ()) + (("s3fs",) if scheme in ("s3", "s3a") else ())
    # Without the part that names a build: an index of packages has no 2.13.0+cpu.
    return [f"{name}=={version(name).partition('+')[0]}" for name in (*LIBRARIES, *more)]


def _loader_in(folder: Path) -> Path:
    spec = find_spec(LOADER)
    assert spec is not None
    assert spec.origin is not None
    content = Path(spec.origin).read_bytes()
    # A name of its own for each state of the file: a process that loads models of two releases imports both.
    copy = folder / f"darkroom_pipeline_{hashlib.sha256(content).hexdigest()[:8]}.py"
    copy.write_bytes(content)
    return copy
