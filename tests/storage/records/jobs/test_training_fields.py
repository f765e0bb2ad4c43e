"""A field of a training request is written once: command line, Prefect's form and API have it by themselves."""

from __future__ import annotations

import inspect
from enum import StrEnum
from uuid import UUID

import msgspec
from prefect.utilities.callables import get_call_parameters, parameters_to_args_kwargs

from deployments.commands.jobs.train import train
from deployments.commands.jobs.training_options import NOT_OPTIONS
from flows.training.request import request_training
from platform_api.jobs.base_models import TrainingDefaultsView
from storage.records.jobs.training import TrainingDefaults, TrainingRecipe, TrainingRequest
from storage.records.jobs.training_fields import training_fields

NAMES = [field.name for field in msgspec.structs.fields(TrainingRequest)]


def test_every_field_is_described_with_its_limits() -> None:
    fields = {field.name: field for field in training_fields()}
    assert list(fields) == NAMES
    assert [name for name, field in fields.items() if not field.description] == []
    assert (fields["data_set_id"].kind, fields["data_set_id"].required) == (UUID, True)
    assert (fields["steps"].kind, fields["steps"].limits, fields["steps"].optional) == (
        int,
        {"ge": 1, "le": 20_000},
        True,
    )
    assert fields["learning_rate"].limits == {"gt": 0.0, "le": 1.0}
    assert sorted(fields["availability"].choices) == ["Private", "Public"]
    assert issubclass(fields["optimizer"].kind, StrEnum)
    assert (fields["lora_dora"].kind, fields["lora_dora"].limits) == (bool, {})
    assert (fields["base_model"].default, fields["base_model"].optional) == ("starter", False)


def test_the_command_has_an_option_for_each() -> None:
    options = set(inspect.signature(train).parameters)
    assert set(NAMES) - set(NOT_OPTIONS) <= options
    assert {"photos", "class_word", "base", "public"} <= options


def test_the_form_in_prefect_has_a_field_for_each_with_its_limits() -> None:
    form = request_training.parameters.properties
    assert list(form) == NAMES
    assert [name for name, field in form.items() if not field.get("description")] == []
    [steps, nothing] = form["steps"]["anyOf"]
    assert (steps["minimum"], steps["maximum"], nothing) == (1, 20_000, {"type": "null"})
    assert request_training.parameters.required == ["data_set_id", "class_word"]


def test_prefect_hands_every_field_over_by_its_name() -> None:
    """As its engine calls a flow: checked against the signature, then bound to it."""
    given = {"data_set_id": UUID(int=1), "class_word": "mug", "steps": 8}
    parameters = get_call_parameters(request_training.fn, (), given)
    positional, named = parameters_to_args_kwargs(request_training.fn, parameters)
    assert positional == ()
    assert {name: value for name, value in named.items() if value is not None} == {**given, "base_model": "starter"}


def test_every_field_that_is_asked_for_is_carried_out() -> None:
    """A field that neither the recipe nor the job has would be taken and then lost."""
    recipe = {field.name for field in msgspec.structs.fields(TrainingRecipe)}
    assert set(NAMES) - recipe == {"data_set_id", "base_model", "name", "availability"}  # the job's own, by `resolve`


def test_the_api_shows_every_default() -> None:
    shown = {field.name for field in msgspec.structs.fields(TrainingDefaultsView)}
    assert shown == {field.name for field in msgspec.structs.fields(TrainingDefaults)}
