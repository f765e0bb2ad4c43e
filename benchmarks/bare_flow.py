"""The peer of `benchmarks.overhead`: the third-party imports of the training flow's module, and an empty body."""

from __future__ import annotations

import time
from pathlib import Path

import dask.distributed  # noqa: F401
import diffusers.models.autoencoders.autoencoder_kl
import diffusers.models.unets.unet_2d_condition
import diffusers.schedulers.scheduling_ddim
import diffusers.schedulers.scheduling_ddpm  # noqa: F401
import fsspec  # noqa: F401
import mlflow.tracking  # noqa: F401
import msgspec  # noqa: F401
import numpy as np  # noqa: F401
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.ImageOps  # noqa: F401
import psutil  # noqa: F401
import psycopg_pool  # noqa: F401
import pydantic_settings  # noqa: F401
import pytorch_lightning  # noqa: F401
import redis.asyncio  # noqa: F401
import safetensors.torch  # noqa: F401
import torch  # noqa: F401
from prefect import flow
from transformers import CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer  # noqa: F401


@flow(name="bare")
def bare(marker: str) -> None:
    """Say when the first line ran."""
    Path(marker).write_text(repr(time.time()))
