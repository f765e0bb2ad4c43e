"""darkroom rebuild: a search index rebuilt from the rows."""

from __future__ import annotations

from typing import Annotated

import typer

from deployments.commands.operator import operator_stores
from flows.indexing import rebuild as rebuilding
from storage.records.search.search import Kind
from storage.settings import load_settings


def rebuild(
    kind: Annotated[Kind, typer.Argument(help="What is searched for.")] = Kind.MODEL,
) -> None:
    """Rebuild a search index beside the one that is read, then swap them.

    Searches and changes go on meanwhile. The flow rebuild-search-index does the same on a worker.
    """
    with operator_stores(load_settings()) as stores:
        build = rebuilding.rebuild(stores, kind)
    typer.echo(f"searches of {kind} read build {build.id}; the one before is dropped in ten minutes")
