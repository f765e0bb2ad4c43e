"""darkroom publish: a model for everybody."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.client.answers import Model, Version
from deployments.client.api import open_api
from storage.settings import load_settings


def publish(
    model_id: Annotated[int, typer.Argument(metavar="MODEL", min=1, help="The model's number.")],
    version: Annotated[int | None, typer.Option(min=1, help="Only this version of it, by its number.")] = None,
) -> None:
    """Show a model of yours, a fine-tune for example, to everybody."""
    settings = load_settings()
    with open_api(settings) as api:
        if version is None:
            model = api.post(f"/api/v1/models/{model_id}/publish", Model)
            typer.echo(f"'{model.name}' is published ({model.availability})")
        else:
            found = api.get(f"/api/v1/model-versions/{version}", Version)
            if found.model_id != model_id:
                raise typer.BadParameter(f"version {version} is of model {found.model_id}", param_hint="--version")
            api.post(f"/api/v1/model-versions/{version}/publish", Version)
            typer.echo(f"version {version} of model {model_id} is published; a private model hides it still")
    typer.echo(f"{settings.api.public_url}/api/v1/models/{model_id}")
