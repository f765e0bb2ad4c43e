"""How fast earlier trainings were: from the rows of their stages."""

from __future__ import annotations

from psycopg.types.json import Jsonb

from storage.postgres.connection import Query, load_statements, many
from storage.records.jobs.costs.paces import DevicePace
from storage.records.jobs.training import TrainingRecipe

SQL = load_statements(__file__)

AS_LONG = (
    *("method", "optimizer", "train_only", "lora_targets", "lora_conv", "lora_dora"),
    *("batch_size", "accumulation", "split_backward"),
    *("precision", "frozen_precision", "gradient_checkpointing", "compile"),
)
"""What of a recipe decides how long a step takes on a device, beside ON."""
ON = ("prior_loss_weight", "text_encoder_learning_rate", "token_learning_rate")
"""Of these only whether they are above 0: a step has class images, and gradients pass through the text encoders."""


def paces(base_model: str, recipe: TrainingRecipe) -> Query[list[DevicePace]]:
    """By device, the most jobs first; none where no job with such settings has succeeded."""
    settings = {name: getattr(recipe, name) for name in AS_LONG}
    on = {name: getattr(recipe, name) > 0 for name in ON}
    return many(SQL["paces"], {"base_model": base_model, "settings": Jsonb(settings), **on}, DevicePace)


def seconds_per_step(base_model: str) -> Query[float | None]:
    """Median seconds from a step to the next of recent jobs on a base model, whatever their settings; None before the
    first."""
    return Query(SQL["seconds_per_step"], {"base_model": base_model}, lambda rows: rows[0]["seconds"])
