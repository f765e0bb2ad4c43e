"""The tables of docs/reference/training.md: the fields of a request, and what each preset sets."""

from __future__ import annotations

from deployments.commands.jobs.training_config import yaml_value
from deployments.reference_tables import table
from storage.records.jobs.choices import TrainingPreset
from storage.records.jobs.presets import PRESETS
from storage.records.jobs.training_fields import TrainingField, training_fields

_names = {field.name: field.json_name for field in training_fields()}


def fields() -> str:
    """Every field with what it does, what may be given, its limits and its default."""
    return table(("field", "what it does", "unit or values", "default"), (_field(one) for one in training_fields()))


def presets() -> str:
    """A row for each card, family and method: exactly what a request that leaves all of it out gets."""
    rows = (
        (f"`{preset}`", family, method, ", ".join(f"`{_names[name]}: {yaml_value(value)}`" for name, value in set_))
        for preset in TrainingPreset
        for (family, method), set_ in ((key, values.items()) for key, values in PRESETS[preset].items())
    )
    return table(("preset", "family", "method", "what it sets"), rows)


def _field(one: TrainingField) -> tuple[str, str, str, str]:
    value = one.value_text.removeprefix("Unit: ").removeprefix("Value: ").rstrip(".")
    limits = " ".join(filter(None, (value, f"({_limits(one)})" if _limits(one) else "")))
    return f"`{one.json_name}`", one.description, limits, "required" if one.required else one.default_text


def _limits(one: TrainingField) -> str:
    return ", ".join(_limit(name, value) for name, value in one.limits.items())


def _limit(name: str, value: float) -> str:
    words = {"ge": "from", "gt": "above", "le": "to", "min_length": "from", "max_length": "to"}
    return f"{words[name]} {value:g}" if isinstance(value, float) else f"{words[name]} {value:,}"
