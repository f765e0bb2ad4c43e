"""darkroom download: the files of a model version, whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from deployments.client.api import open_api
from deployments.client.downloads import fetch_file, safe_target
from deployments.client.responses import ModelResponse, Version
from deployments.commands.jobs.results import file_name
from storage.settings import load_settings


def download(
    version: Annotated[
        int, typer.Argument(metavar="VERSION", help="A model version's number; `darkroom jobs list` shows them.")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the files; default: the model's name here.")] = None,
    weights_only: Annotated[bool, typer.Option("--weights-only", help="Only the one file with all weights.")] = False,
) -> None:
    """Bring a model version here. Repeating goes on where it broke off.

    It is one safetensors file with all weights, and a folder that diffusers loads.
    """
    with open_api(load_settings()) as api:
        found = api.get(f"/api/v1/model-versions/{version}", Version)
        model = api.get(f"/api/v1/models/{found.model_id}", ModelResponse)
        folder = (out or Path(f"{file_name(model.name)}-{found.name}")).resolve()
        files = [file for file in found.stored_files if file.role == "weights" or not weights_only]
        targets = [safe_target(folder, file.path) for file in files]
        console = Console()
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
            task = bars.add_task(f"{len(files)} files", total=sum(file.size for file in files))
            new = sum(
                fetch_file(
                    api,
                    file.url,
                    target,
                    sha256=file.sha256,
                    size=file.size,
                    on_bytes=lambda count: bars.update(task, advance=count),
                )
                for file, target in zip(files, targets, strict=True)
            )
    typer.echo(f"{new} files fetched, {len(files) - new} were there; every SHA-256 agrees")
    for file, target in zip(files, targets, strict=True):
        if file.role == "weights":
            typer.echo(f"weights: {target}")
    if not weights_only:
        typer.echo(f'load it: DiffusionPipeline.from_pretrained("{folder}")')
