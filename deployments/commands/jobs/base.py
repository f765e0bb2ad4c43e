"""darkroom base: the base models that a fine-tune can start from, registered by the operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from deployments.base_models.registration import add_base_model
from deployments.commands.operator import operator_stores
from deployments.commands.tables import echo_table
from storage.postgres.jobs import base_models
from storage.records.jobs.base_models import BaseModelCard, BaseModelFile
from storage.settings import load_settings

app = typer.Typer(help="Base models that a fine-tune can start from.", no_args_is_help=True, add_completion=False)


@app.command()
def add(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A folder in diffusers layout, or a single .safetensors file of the whole model; Stable Diffusion 1 "
            "or XL, or made of one.",
        ),
    ],
    name: Annotated[str, typer.Option(help="What requests call it: sd15.")],
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="For a single file: a diffusers folder of the same family and shape, for its configs and tokenizers.",
        ),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Use this folder for the name from now on; earlier jobs keep the one they were submitted with.",
        ),
    ] = False,
) -> None:
    """Check a base model, copy its files into the store and register it under a name."""
    with operator_stores(load_settings()) as stores:
        base = add_base_model(stores, path, name, replace, config)
        files = stores.database.run(base_models.files(base.id))
    card = base.facts
    typer.echo(f"base model '{base.name}': {card.family}, {card.resolution} px, {len(files)} files, {_size(files)}")
    typer.echo(f"hash {base.folder_hash}")
    typer.echo(f"train on it with: darkroom train FOLDER CLASS_WORD --base {base.name}")


@app.command("list")
def list_bases(
    replaced: Annotated[
        bool,
        typer.Option("--replaced", help="Those that another folder has replaced, kept for the jobs that name them."),
    ] = False,
) -> None:
    """List the registered base models."""
    with operator_stores(load_settings()) as stores:
        found = stores.database.run(base_models.list_replaced() if replaced else base_models.list_all())
    if replaced and not found:
        typer.echo("no base model was replaced, or none is kept any more")
        return
    if not found:
        typer.echo("no base models. Register one with: darkroom base add PATH --name NAME")
        return
    rows = [
        (base.name, card.family, card.resolution, card.licence, base.folder_hash[:12], _classes(card))
        for base in found
        for card in [base.facts]
    ]
    echo_table(("name", "family", "pixels", "licence", "hash", "classes"), rows)


def _classes(card: BaseModelCard) -> str:
    return ", ".join(card.class_words) or "any"


def _size(files: list[BaseModelFile]) -> str:
    return f"{sum(file.size for file in files) / 1_000_000:,.1f} MB"
