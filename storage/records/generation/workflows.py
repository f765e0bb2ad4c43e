"""Workflows: their steps in order, each named, and which pictures go from one to another. Nothing here asks a store."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.drawings import Operation
from storage.records.generation.step_fields import StepOutput
from storage.records.generation.step_requests import StepRequest, WorkflowRequest

_AIR = re.compile(r"urn:air:[a-z0-9_-]+:[a-z0-9_-]+:[a-z0-9_-]+:(\d+)@(\d{1,16})(?:\.[a-z0-9]+)?", re.IGNORECASE)
_NEEDED: dict[Operation, tuple[str, ...]] = {
    Operation.TXT2IMG: ("model", "prompt"),
    Operation.IMG2IMG: ("model", "prompt", "image"),
    Operation.INPAINT: ("model", "prompt", "image", "mask"),
    Operation.UPSCALE: ("image", "width", "height"),
}
_OF_SOURCES = ("image", "mask", "strength")
_UNUSED: dict[Operation, tuple[str, ...]] = {
    Operation.TXT2IMG: _OF_SOURCES,
    Operation.IMG2IMG: ("mask",),
    Operation.INPAINT: (),
    Operation.UPSCALE: tuple(
        name
        for name in StepRequest.__struct_fields__
        if name not in ("name", "operation", "image", "width", "height", "format", "backend")
    ),
}
"""What has no meaning in a step of an operation, so that whoever asks for it meant something else."""

_DEFAULTS = StepRequest()
_NAMES = {field.name: field.encode_name for field in msgspec.structs.fields(StepRequest)}


def steps_of(request: WorkflowRequest) -> tuple[StepRequest, ...]:
    """The steps of a workflow, each with a name of its own.

    Raises InvalidRequest for what a step lacks or does not take, for a name that two of them have, and for a `$ref` to
    a step that is not there, comes later or draws fewer pictures. Fields are named by their place, such as
    `workflow[1].image`.
    """
    if request.workflow is None:
        steps = (StepRequest(**{name: getattr(request, name) for name in StepRequest.__struct_fields__}),)
        return _checked(steps, lambda _place, field: field)
    _refuse_both(request)
    return _checked(request.workflow, lambda place, field: f"workflow[{place}].{field}")


def version_named(field: str, name: int | str) -> int:
    """The number of the version that a request names, by itself or in an AIR. Raises InvalidRequest."""
    if isinstance(name, int):
        return name
    found = _AIR.fullmatch(name)
    if found is None or not int(found[2]):
        raise InvalidRequest(
            {field: f"'{name[:100]}' is no AIR with a version, such as urn:air:sd1:checkpoint:civitai:2@3"}
        )
    return int(found[2])


def check_model_named(field: str, name: int | str, own: str) -> None:
    """Raises InvalidRequest where an AIR names another model than `own`, the AIR of the version of its number here: the
    number may be one of Civitai's own."""
    if isinstance(name, int):
        return
    wanted, here = _AIR.fullmatch(name), _AIR.fullmatch(own)
    if wanted and here and wanted[1].lstrip("0") != here[1]:
        raise InvalidRequest({field: f"is no resource of this platform: its version {here[2]} is {own}"})


def _refuse_both(request: WorkflowRequest) -> None:
    mixed = [called for name, called in _NAMES.items() if getattr(request, name) != getattr(_DEFAULTS, name)]
    if mixed:
        raise InvalidRequest(dict.fromkeys(mixed, "belongs into a step of `workflow`, which has steps of its own"))


def _checked(steps: tuple[StepRequest, ...], called: Callable[[int, str], str]) -> tuple[StepRequest, ...]:
    names = [step.name or str(place) for place, step in enumerate(steps)]
    faults: dict[str, str] = {}
    counts: dict[str, int] = {}
    for place, (step, name) in enumerate(zip(steps, names, strict=True)):
        found = _of_operation(step)
        if name in counts:
            found["name"] = f"'{name}' is the name of an earlier step; give each its own"
        for field in ("image", "mask"):
            if field not in found and (reason := _of_source(getattr(step, field), name, counts, names)):
                found[field] = reason
        faults |= {called(place, field): reason for field, reason in found.items()}
        counts.setdefault(name, step.count)
    if faults:
        raise InvalidRequest(faults)
    return tuple(msgspec.structs.replace(step, name=name) for step, name in zip(steps, names, strict=True))


def _of_operation(step: StepRequest) -> dict[str, str]:
    """What a step of its operation lacks, and what it does not take."""
    faults = {
        _NAMES[name]: f"is needed by {step.operation}"
        for name in _NEEDED[step.operation]
        if getattr(step, name) in (None, "")
    }
    for name in _UNUSED[step.operation]:
        if getattr(step, name) != getattr(_DEFAULTS, name):
            faults[_NAMES[name]] = f"is not for {step.operation}; leave it out"
    return faults


def _of_source(source: object, name: str, counts: Mapping[str, int], names: Sequence[str]) -> str:
    """What is wrong with a picture that is to come from another step; empty for nothing."""
    if not isinstance(source, StepOutput):
        return ""
    wanted = source.step
    if wanted not in counts:
        if wanted == name:
            return f"$ref '{wanted}' is this very step; name an earlier one"
        if wanted in names:
            return f"$ref '{wanted}' is a later step; steps run in their order, so move it before this one"
        near = difflib.get_close_matches(wanted, list(counts), 3)
        known = ", ".join(near or list(counts)) or "none: this is the first"
        return f"$ref '{wanted}' names no earlier step; there are: {known}"
    if source.image >= counts[wanted]:
        return f"step '{wanted}' draws {counts[wanted]} pictures, numbered from 0; it has no {source.image}"
    return ""
