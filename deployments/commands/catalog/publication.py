"""darkroom models, darkroom publish: what is yours, and a model for everybody."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from deployments.client.api import Api, open_api
from deployments.client.responses import Listing, ModelResponse, Version, VersionState
from deployments.commands.tables import echo_table
from storage.settings import load_settings

PAGE = 100


def models(limit: Annotated[int, typer.Option("-n", min=1, help="Models to show.")] = 20) -> None:
    """List your models, newest first, also drafts and private ones."""
    with open_api(load_settings()) as api:
        page = api.get("/api/v1/me/models", Listing[ModelResponse], params={"limit": min(limit, PAGE)})
        found = page.items
        while len(found) < limit and page.metadata.next_page:
            page = api.get(page.metadata.next_page, Listing[ModelResponse])
            found += page.items
    if not found:
        typer.echo("no models yet. Make one with: darkroom train FOLDER_OF_PHOTOS CLASS_WORD")
        return
    rows = [
        (model.id, model.name, model.status, model.availability, ", ".join(str(one.id) for one in model.model_versions))
        for model in found[:limit]
    ]
    echo_table(("model", "name", "status", "availability", "versions"), rows)
    if len(found) > limit or page.metadata.next_page:
        typer.echo(f"there are more: darkroom models -n {limit * 5}")


def publish(
    model_id: Annotated[int, typer.Argument(metavar="MODEL", min=1, help="The model's number.")],
    version: Annotated[int | None, typer.Option(min=1, help="Only this version of it, by its number.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Show a model of yours, a fine-tune for example, to everybody."""
    settings = load_settings()
    with open_api(settings) as api:
        if version is None:
            _publish_model(api, model_id, yes=yes)
        else:
            _publish_version(api, model_id, version)
    typer.echo(f"{settings.api.public_url}/api/v1/models/{model_id}")


def _publish_model(api: Api, model_id: int, *, yes: bool) -> None:
    before = api.get(f"/api/v1/models/{model_id}", ModelResponse)
    hidden = [one for one in before.model_versions if one not in before.public_versions]
    for one in hidden:
        typer.echo(f"hidden so far: {_named(one)} ({one.status}, {one.availability})")
    if hidden and not yes:
        _ask(
            f"Show '{before.name}' to everybody? Of these versions, drafts and scheduled ones with a file and "
            "fine-tunes that never were public are shown, too."
        )
    after = api.post(f"/api/v1/models/{model_id}/publish", ModelResponse)
    seen = {one.id for one in before.public_versions}
    for one in after.public_versions:
        if one.id not in seen:
            typer.echo(f"public now: {_named(one)}")
    typer.echo(f"'{after.name}' is published ({after.availability})")


def _publish_version(api: Api, model_id: int, version: int) -> None:
    found = api.get(f"/api/v1/model-versions/{version}", Version)
    if found.model_id != model_id:
        raise typer.BadParameter(f"version {version} is of model {found.model_id}", param_hint="--version")
    api.post(f"/api/v1/model-versions/{version}/publish", Version)
    model = api.get(f"/api/v1/models/{model_id}", ModelResponse)
    if model.is_public:
        typer.echo(f"version {version} of model {model_id} is public now")
    else:
        typer.echo(
            f"version {version} is published; its model hides it still ({model.status}, {model.availability}): "
            f"darkroom publish {model_id}"
        )


def _ask(question: str) -> None:
    """End the command unless somebody at a terminal says yes."""
    if not sys.stdin.isatty():
        raise typer.BadParameter(
            "there is no terminal to ask: add --yes, or show one version with --version", param_hint="--yes"
        )
    typer.confirm(question, abort=True)


def _named(version: VersionState) -> str:
    return f"version {version.id} '{version.name}'"
