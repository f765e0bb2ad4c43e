"""The OpenAPI document's fields of a training request, with unit and default as every other form shows them."""

from __future__ import annotations

from typing import Any

from platform_api.jobs.training_estimates import TrainingPlan
from storage.records.jobs.training import TrainingRequest
from storage.records.jobs.training_basics import SamplerRequest
from storage.records.jobs.training_fields import training_fields

BODIES = (TrainingRequest, TrainingPlan)
INSIDE = {"sampler": SamplerRequest}
"""Fields that hold fields of their own, which have a schema of their own."""


def describe_training_fields(schemas: dict[str, Any]) -> None:
    """Write the texts into the document's schemas; `x-unit` has the unit alone."""
    for field in training_fields():
        outer, name = (*field.path[:-1], ""), field.json_name.rpartition(".")[2]
        bodies = (INSIDE[outer[0]],) if outer[0] else BODIES
        for body in bodies:
            shown = schemas[body.__name__]["properties"][name]
            shown["description"] = field.help
            if field.unit:
                shown["x-unit"] = field.unit
    for inside in INSIDE.values():
        schemas[inside.__name__]["additionalProperties"] = False
