"""A training request as a user gives it: a YAML file, options that override it, and `--set` that overrides both.

The merged values are checked against the request's own types, and every fault is reported with its source.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec

from deployments.client.api import ApiRefusal
from deployments.client.yaml_values import read_yaml
from storage.errors import Refused
from storage.records.jobs.training import TrainingRequest
from storage.records.jobs.training_fields import training_fields
from storage.request_faults import field_faults, record_of, unknown_name

MAX_BYTES = 64 * 1024
STDIN = "-"
FROM_ARGUMENTS = ("dataSetId", "classWord")
"""Required fields that the command's arguments may bring."""


class InvalidTraining(Refused):
    """A training request is not valid; the message has one line for each fault, with its source."""

    code = "invalid_training"

    def __init__(self, faults: Iterable[tuple[str, str]]) -> None:
        super().__init__("\n".join(f"{place}: {reason}" for place, reason in faults))


class TrainingInput:
    """The values of a request by the names of its JSON, and the source of each."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._places: dict[str, str] = {}

    def read_file(self, name: str) -> None:
        """Merge a YAML file; `-` is standard input. Raises InvalidYaml, InvalidTraining, OSError."""
        shown = "standard input" if name == STDIN else name
        content = sys.stdin.buffer.read(MAX_BYTES + 1) if name == STDIN else _start_of(Path(name))
        if len(content) > MAX_BYTES:
            raise InvalidTraining([(shown, f"more than {MAX_BYTES:,} bytes; is it the file of a training?")])
        document = read_yaml(content, shown)
        if document.value is None:
            raise InvalidTraining(
                [(shown, "the file is empty. `darkroom train --print-full-config` prints a complete one")]
            )
        if not isinstance(document.value, dict):
            raise InvalidTraining([(shown, "expected lines of `field: value`, such as `steps: 800`")])
        self._merge(cast(dict[str, Any], document.value), shown, document.lines)

    def add_options(self, values: Mapping[str, Any], place: str = "the command line") -> None:
        """Merge options and arguments by the names of the JSON; None was not given."""
        self._merge({name: value for name, value in values.items() if value is not None}, place, {})

    def apply_settings(self, settings: Sequence[str]) -> None:
        """Merge `path=value` settings; a path has dots between names, and a number for an item of a list. Raises
        InvalidYaml, InvalidTraining with the nearest path."""
        for setting in settings:
            path, equals, text = setting.partition("=")
            place = f"--set {path}"
            if not equals or not path:
                raise InvalidTraining([(f"--set {setting}", "expected PATH=VALUE, such as steps=800")])
            value = read_yaml(text, place).value
            if reason := _put(self.values, path.split("."), value, TrainingRequest):
                raise InvalidTraining([(place, reason)])
            self._places[path] = place

    def request(self) -> dict[str, Any]:
        """The merged request, checked; null unsets a field. Raises InvalidTraining with every fault and its source."""
        values = cast(dict[str, Any], _without_nothing(self.values))
        faults = field_faults(values, TrainingRequest)
        kept = {name: reason for name, reason in faults.items() if not (name in FROM_ARGUMENTS and name not in values)}
        if kept:
            raise self.refusal(kept)
        return values

    def refusal(self, faults: Mapping[str, str]) -> InvalidTraining:
        """The error for faults by field, each with the source of the field's value."""
        return InvalidTraining((self._place(name), f"{name}: {_redirected(name, why)}") for name, why in faults.items())

    def refused_by_the_api(self, error: ApiRefusal) -> Exception:
        """The same for a refusal of the API that names fields; any other refusal unchanged."""
        faults = error.problem.errors
        return self.refusal(faults) if any(name in self._places for name in faults) else error

    def _merge(self, values: Mapping[str, Any], place: str, lines: Mapping[str, int]) -> None:
        for name, value in values.items():
            if isinstance(value, dict) and isinstance(self.values.get(name), dict):
                self.values[name] |= value
            else:
                self.values[name] = value
            inside = [f"{name}.{inner}" for inner in cast(dict[str, Any], value)] if isinstance(value, dict) else []
            for path in (name, *inside):
                self._places[path] = f"{place}, line {lines[path]}" if path in lines else place

    def _place(self, name: str) -> str:
        while name not in self._places and "." in name:
            name = name.rpartition(".")[0]
        return self._places.get(name, "the command line")


def _start_of(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MAX_BYTES + 1)


def _put(values: dict[str, Any], path: Sequence[str], value: Any, kind: type[msgspec.Struct]) -> str:
    """Put a value at a path inside a request; returns why it cannot be, or nothing."""
    name, *rest = path
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    if name not in fields:
        known = list(fields) if kind is not TrainingRequest else _paths()
        return unknown_name(".".join(path), known, TrainingRequest.peer_names)
    if not rest:
        values[name] = value
        return ""
    if inside := record_of(fields[name].type):
        if not isinstance(values.get(name), dict):
            values[name] = {}
        return _put(values[name], rest, value, inside)
    if isinstance(values.get(name), list) and len(rest) == 1 and rest[0].isdigit():
        return _put_in_list(cast(list[Any], values[name]), int(rest[0][:6]), value)
    return f"{name} has nothing inside it that could be set; set it as a whole: --set {name}=VALUE"


def _put_in_list(values: list[Any], place: int, value: Any) -> str:
    if place > len(values):
        return f"the list has {len(values)} values, counted from 0; {len(values)} would be the next one"
    values[place : place + 1] = [value]
    return ""


def _paths() -> list[str]:
    return [field.json_name for field in training_fields()]


def _redirected(name: str, reason: str) -> str:
    """A reason that also knows the fields inside others: `guidanceScale` was meant as `sampler.guidanceScale`."""
    if not reason.startswith("there is no such field") or "." in name:
        return reason
    return unknown_name(name, _paths(), TrainingRequest.peer_names)


def _without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        fields = cast(dict[str, Any], value)
        return {name: _without_nothing(one) for name, one in fields.items() if one is not None}
    return value
