"""darkroom generate: images from a model version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from uuid import uuid4

import typer
from rich.console import Console

from deployments.client.api import open_api
from deployments.client.responses import JobResponse, Submitted, job_root
from deployments.commands.jobs.job_progress import display_for, follow_job
from deployments.commands.jobs.results import save_images
from storage.records.jobs.choices import GenerationBackend
from storage.settings import load_settings

SUBMIT_PATIENCE_SECONDS = 30.0


def generate(
    version: Annotated[
        int, typer.Argument(metavar="VERSION", help="A model version's number; `darkroom jobs list` shows them.")
    ],
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help='What to draw: "a photo of a sks mug on the beach".')],
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=64, help="Images to draw.")] = 4,
    negative_prompt: Annotated[str, typer.Option(help="What to keep out of the images.")] = "",
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="How closely to keep to the prompt.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the first image; the next has the next.")] = None,
    backend: Annotated[GenerationBackend | None, typer.Option(help="What draws them.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path(),
) -> None:
    """Draw images with a model version and save them."""
    wanted = {
        "modelVersionId": version,
        "prompt": prompt,
        "negativePrompt": negative_prompt,
        "count": count,
        "steps": steps,
        "guidanceScale": guidance_scale,
        "seed": seed,
        "backend": backend,
    }
    body = {name: value for name, value in wanted.items() if value is not None}
    with open_api(load_settings()) as api:
        root, key = job_root("generation"), {"Idempotency-Key": str(uuid4())}
        submitted = api.post(root, Submitted, json=body, headers=key, patience_seconds=SUBMIT_PATIENCE_SECONDS)
        typer.echo(f"submitted job {submitted.id}")
        job = follow_job(api, api.get(f"{root}/{submitted.id}", JobResponse), display_for(Console()))
        for path in save_images(api, job, out):
            typer.echo(path)
