"""Image sets drawn from a base model and shared by every job that needs the same one, or the beginning of it.

The column `recipe_hash` holds a recipe's `key()`. `recipe` is the one that the set was begun with; `images` the most
that any recipe asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec
from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, Script, column, load_statements, many
from storage.records.jobs.sampled_sets import SamplingRecipe

SQL = load_statements(__file__)


class SampledImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of a set: PNG bytes in the blob store."""

    position: int
    sha256: str
    size: int


def ensure(recipe: SamplingRecipe) -> Script[list[SampledImage]]:
    """The images of a recipe that are there already, by position."""
    parameters = {
        "recipe_hash": recipe.key(),
        "recipe": Jsonb(msgspec.to_builtins(recipe)),
        "images": len(recipe.prompts),
    }
    yield from column(SQL["ensure"], parameters, str)
    return (yield from images(recipe))


def images(recipe: SamplingRecipe) -> Query[list[SampledImage]]:
    """The images of a recipe, by position; its set may hold more."""
    return many(SQL["images"], {"recipe_hash": recipe.key(), "images": len(recipe.prompts)}, SampledImage)


def put_batch(recipe_hash: str, batch: Sequence[SampledImage]) -> Query[int]:
    """Record a batch, or what was missing of one, whose bytes are stored."""
    parameters = {"recipe_hash": recipe_hash, "images": Jsonb(msgspec.to_builtins(list(batch)))}
    return Query(SQL["put_batch"], parameters, len)


def locked(recipe_hash: str, before: datetime) -> Query[list[str]]:
    """The set if nobody has asked for it since `before`, held until the transaction ends; else nothing."""
    return column(SQL["locked"], {"recipe_hash": recipe_hash, "before": before}, str)


def lock_name(recipe_hash: str) -> str:
    """Name of the advisory lock under which one process at a time fills a set."""
    return f"sampled-set:{recipe_hash}"
