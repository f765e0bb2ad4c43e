"""A request for pictures as a user gives it: a file with steps, a picture to read it from, options that override both.

The merged values are checked against the request's own types, and every fault is reported with its source.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import msgspec

from deployments.client.api import ApiRefusal
from deployments.client.yaml_values import read_yaml
from storage.errors import InvalidRequest, Refused
from storage.records.generation.scheduler_names import find_scheduler
from storage.records.generation.step_requests import StepRequest, WorkflowRequest
from storage.records.generation.workflows import steps_of, version_named
from storage.request_faults import field_faults

MAX_BYTES = 1024 * 1024
THE_LINE = "the command line"
SOURCES = ("image", "mask")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SENT = "0" * 64


class InvalidGeneration(Refused):
    """A request for pictures is not valid; the message has one line for each fault, with its source."""

    code = "invalid_generation"

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{place}: {reason}" for place, reason in faults))


class GenerationInput:
    """The values of a request by the names of its JSON, and the source of each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._places: dict[str, str] = {}
        self._options: set[str] = set()
        self._names: dict[str, str] = {}

    def read_file(self, file: Path) -> None:
        """Merge a file of JSON or YAML: a list of steps, or a request's fields. Raises InvalidYaml, InvalidGeneration,
        OSError."""
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InvalidGeneration([(str(file), f"more than {MAX_BYTES:,} bytes; is it the file of a workflow?")])
        value, lines = _read(content, file)
        if isinstance(value, list):
            value, lines = {"workflow": value}, {f"workflow{path}": line for path, line in lines.items()}
        if not isinstance(value, dict):
            raise InvalidGeneration([(str(file), "expected a list of steps, or a request's fields such as `prompt`")])
        self.values |= cast(dict[str, Any], value)
        self._places |= dict.fromkeys(cast(dict[str, Any], value), str(file))
        for path, line in lines.items():
            self._places[_as_the_api_names(path)] = f"{file}, line {line}"

    def add(self, values: Mapping[str, Any], place: str) -> None:
        """Merge values of one source; None was not given."""
        for name, value in values.items():
            if value is not None:
                self.values[name], self._places[name] = value, place
                self._options.discard(name)

    def add_options(self, values: Mapping[str, tuple[Any, str]]) -> None:
        """Merge options: by field, the value and the option's name; None was not given."""
        for name, (value, option) in values.items():
            self._names[name] = option
            if value is not None:
                self.values[name], self._places[name] = value, option
                self._options.add(name)

    def given_by_option(self, name: str) -> bool:
        """Whether an option sets a field."""
        return name in self._options

    def steps(self) -> list[dict[str, Any]]:
        """The steps, or the request itself where it is one, to be changed in place."""
        steps: object = self.values.get("workflow")
        if not isinstance(steps, list):
            return [self.values]
        return [cast(dict[str, Any], step) for step in cast(list[object], steps) if isinstance(step, dict)]

    def request(self) -> dict[str, Any]:
        """The merged request, checked as far as no store is needed. Raises InvalidGeneration with every fault and its
        source."""
        # In JSON a null is the same as nothing, but in a picture or a file it would be a fault of some fields.
        values = {name: value for name, value in self.values.items() if value is not None}
        checked = _with_sources(values)
        if faults := field_faults(checked, WorkflowRequest):
            raise self.refusal(faults)
        try:
            request = msgspec.convert(checked, WorkflowRequest)
            for place, step in enumerate(steps_of(request)):
                _check_names(step, "" if request.workflow is None else f"workflow[{place}].")
        except InvalidRequest as error:
            raise self.refusal(error.fields) from error
        return values

    def refusal(self, faults: Mapping[str, str]) -> InvalidGeneration:
        """The error for faults by field, each with the source of the field's value."""
        return InvalidGeneration(self._line(name, reason) for name, reason in faults.items())

    def refused_by_the_api(self, error: ApiRefusal) -> Exception:
        """The same for a refusal of the API that names fields; any other refusal unchanged."""
        return self.refusal(error.problem.errors) if error.problem.errors else error

    def _line(self, name: str, reason: str) -> tuple[str, str]:
        field, outer = name, name
        while outer not in self._places and (found := re.fullmatch(r"(.+?)(?:\.[^.\[]*|\[\d+\])", outer)):
            outer = found[1]
        if outer not in self._places:
            # Nobody gave it: the option that would have.
            return self._names.get(field, THE_LINE), reason if field in self._names else f"{field}: {reason}"
        place = self._places[outer]
        # An option says by its name which field it is, but for one that sets several.
        alone = list(self._places.values()).count(place) == 1
        if outer in self._options and outer == field and alone:
            return place, reason
        return place, f"{field}: {reason}"


def is_file(source: object) -> bool:
    """Whether an `image` or `mask` names a file, and neither a picture that the API has nor a step's."""
    return isinstance(source, str) and not _SHA256.fullmatch(source)


def _with_sources(values: dict[str, Any]) -> dict[str, Any]:
    """The request as it is once its files have been sent."""
    whole = {name: _SENT if name in SOURCES and is_file(value) else value for name, value in values.items()}
    steps: object = values.get("workflow")
    if isinstance(steps, list):
        several = cast(list[Any], steps)
        whole["workflow"] = [_with_sources(step) if isinstance(step, dict) else step for step in several]
    return whole


def _read(content: bytes, file: Path) -> tuple[Any, Mapping[str, int]]:
    """A document's value, and its fields' lines where they are known. Raises InvalidYaml, InvalidGeneration."""
    # YAML takes no tab between what JSON may have there.
    if file.suffix.lower() != ".json":
        document = read_yaml(content, str(file))
        return document.value, document.lines
    try:
        return msgspec.json.decode(content), {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidGeneration([(str(file), f"this is not JSON: {error}")]) from error


def _check_names(step: StepRequest, outer: str) -> None:
    """The scheduler, and the versions' names. Raises InvalidRequest."""
    faults: dict[str, str] = {}
    named = {"model": step.model} | {f"adapters[{place}].model": one.model for place, one in enumerate(step.adapters)}
    for field, name in named.items():
        try:
            if name is not None:
                version_named(field, name)
        except InvalidRequest as error:
            faults |= error.fields
    try:
        find_scheduler(step.scheduler or "ddim", step.spacing or "", step.eta)
    except InvalidRequest as error:
        faults |= error.fields
    if faults:
        raise InvalidRequest({f"{outer}{name}": reason for name, reason in faults.items()})


def _as_the_api_names(path: str) -> str:
    """`workflow.1.adapters.0.model` of a file is the API's `workflow[1].adapters[0].model`."""
    return re.sub(r"\.(\d+)(?=\.|$)", r"[\1]", path)
