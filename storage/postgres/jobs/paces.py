"""How fast earlier trainings were: from the jobs' own rows."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, load_statements, many
from storage.records.jobs.costs.paces import DevicePace
from storage.records.jobs.training import TrainingRecipe

SQL = load_statements(__file__)

AS_LONG = ("method", "batch_size", "accumulation", "precision", "gradient_checkpointing")
"""What of a recipe decides how long a step takes on a device."""


def paces(base_model: str, recipe: TrainingRecipe) -> Query[list[DevicePace]]:
    """By device, the most jobs first; none where no job with such settings has succeeded."""
    settings = {name: getattr(recipe, name) for name in AS_LONG}
    return many(SQL["paces"], {"base_model": base_model, "settings": Jsonb(settings)}, DevicePace)
