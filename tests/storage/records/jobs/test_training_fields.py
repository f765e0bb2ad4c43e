"""A field of a training request is written once: command line, YAML, Prefect's form, API and docs/ have it from there,
each with its unit and its default."""

from __future__ import annotations

import inspect
from enum import StrEnum
from uuid import UUID

import msgspec
import pytest
from prefect.utilities.callables import get_call_parameters, parameters_to_args_kwargs

from deployments.commands.jobs.train import train
from deployments.commands.jobs.training_config import config_file
from deployments.commands.jobs.training_options import NOT_OPTIONS
from deployments.reference_pages import DOCS
from deployments.reference_tables import api_document
from flows.training.request import request_training
from platform_api.jobs.base_models import TrainingDefaultsView
from storage.records.jobs.training import TrainingDefaults, TrainingRecipe, TrainingRequest
from storage.records.jobs.training_fields import TrainingField, nested, training_fields

OUTER = {field.name for field in msgspec.structs.fields(TrainingRequest)}
FIELDS = training_fields()
NAMES = [field.name for field in FIELDS]
every_field = pytest.mark.parametrize("field", FIELDS, ids=NAMES)


def test_every_field_is_there_the_required_ones_first() -> None:
    assert {field.path[0] for field in FIELDS} == {one.encode_name for one in msgspec.structs.fields(TrainingRequest)}
    assert NAMES[:2] == ["class_word", "data_set_id"]
    fields = {field.name: field for field in FIELDS}
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
    assert (fields["sampler_steps"].path, fields["evaluation_scenes"].kind) == (("sampler", "steps"), list[str])


@every_field
def test_every_field_says_what_it_does_its_unit_and_its_default(field: TrainingField) -> None:
    """A new field without them fails here: see training_basics.py for how to write them."""
    assert field.description
    counted = field.kind in (int, float) and field.name != "seed"
    assert bool(field.unit) == counted, "a number that counts something has a unit, nothing else has one"
    assert field.required or field.default_text
    if field.kind in (int, float):
        assert field.example is not None
    if field.example is not None and not field.required:
        given = {"class_word": "mug", "data_set_id": UUID(int=1), field.name: field.example}
        msgspec.convert(nested(given), TrainingRequest)  # an example that is refused would be no help


@every_field
def test_every_form_says_it(field: TrainingField) -> None:
    """OpenAPI, the command's help, the form in Prefect, the printed YAML and docs/ have one text."""
    schemas = api_document()["components"]["schemas"]
    shown = schemas["SamplerRequest" if len(field.path) > 1 else "TrainingRequest"]["properties"]
    places = {
        "OpenAPI": str(shown[field.json_name.rpartition(".")[2]]["description"]),
        "Prefect": str(request_training.parameters.properties[field.name]["description"]),
        "YAML": config_file({}).replace("\n# ", " ").replace("\n  # ", " "),
    }
    if field.name not in NOT_OPTIONS:
        option = inspect.signature(train).parameters[field.name].annotation.__metadata__[0]
        places["help"] = option.help
    assert [place for place, text in places.items() if field.help not in text] == []
    page = (DOCS / "reference/training.md").read_text().replace("\\|", "|")
    row = next(line for line in page.splitlines() if line.startswith(f"| `{field.json_name}` |"))
    assert field.description in row
    assert field.required or field.default_text in row
    assert field.unit in row


def test_the_command_has_an_option_for_each() -> None:
    options = set(inspect.signature(train).parameters)
    assert set(NAMES) - set(NOT_OPTIONS) <= options
    assert {"photos", "class_word", "base", "public", "config", "set_", "print_config", "estimate"} <= options


def test_the_form_in_prefect_has_a_field_for_each_with_its_limits() -> None:
    form = request_training.parameters.properties
    assert list(form) == NAMES
    [steps, nothing] = form["steps"]["anyOf"]
    assert (steps["minimum"], steps["maximum"], nothing) == (1, 20_000, {"type": "null"})
    assert sorted(request_training.parameters.required) == ["class_word", "data_set_id"]


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
    # The job's own, by `resolve`; epochs are steps in the recipe.
    assert OUTER - recipe == {"data_set_id", "base_model", "name", "availability", "preset", "keep_every_epochs"}


def test_the_api_shows_every_default() -> None:
    shown = {field.name for field in msgspec.structs.fields(TrainingDefaultsView)}
    assert shown == {field.name for field in msgspec.structs.fields(TrainingDefaults)}
