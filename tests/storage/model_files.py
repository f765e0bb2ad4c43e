"""A base model's files with no weight that means anything: safetensors in the shapes of a UNet, a VAE, an encoder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from storage.blobs.store import BlobStore
from storage.records.jobs.base_models import BaseModelFile

LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.weight"
TENSORS = {
    "unet": {LAYER: (32, 32), "conv_in.weight": (32, 4, 3, 3)},
    "vae": {"encoder.conv_in.weight": (8, 3, 3, 3)},
    "text_encoder": {"text_model.embeddings.token_embedding.weight": (64, 16)},
}
CONFIGS = {
    "unet": {"block_out_channels": [32, 32], "layers_per_block": 1, "down_block_types": ["CrossAttnDown", "Down"]},
    "vae": {"block_out_channels": [8, 8, 8, 8]},
    "text_encoder": {"num_hidden_layers": 2, "hidden_size": 16},
}
PARAMETERS = {"unet": 32 * 32 + 32 * 4 * 9, "vae": 8 * 27, "text_encoder": 64 * 16}


def write_model(folder: Path) -> Path:
    """A folder of that model; returns it."""
    for part, tensors in TENSORS.items():
        (folder / part).mkdir(parents=True)
        values = {name: np.zeros(shape, np.float32) for name, shape in tensors.items()}
        save_file(values, folder / part / "diffusion_pytorch_model.safetensors")
        (folder / part / "config.json").write_text(json.dumps(CONFIGS[part]))
    return folder


def stored_model(blobs: BlobStore, folder: Path) -> list[BaseModelFile]:
    """The same folder's files in a blob store."""
    paths = sorted(path for path in write_model(folder).rglob("*") if path.is_file())
    blobs_of = {path: blobs.put_file(path) for path in paths}
    return [
        BaseModelFile(path=path.relative_to(folder).as_posix(), sha256=blob.sha256, size=blob.size)
        for path, blob in blobs_of.items()
    ]
