"""A workflow of Civitai's orchestration, read: every field at fault is named as its sender wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from storage.errors import InvalidRequest
from storage.records.generation.prices import Priority
from storage.records.orchestration.left_out import (
    ENGINES,
    IGNORED,
    IGNORED_OF_STEPS,
    NOT_FOR_AN_INPUT,
    NOT_FOR_THE_WORKFLOW,
    UNRATED,
    why_not,
)
from storage.records.orchestration.templates import (
    ComfyInput,
    ImageUpscalerInput,
    SdCppInput,
    StepRead,
    StepTemplate,
    TemplateRead,
    TextToImageInput,
    WorkflowTemplate,
    Written,
)
from storage.request_faults import field_faults, is_nested_deeper

TEMPLATE_KEY = "$template"
"""Under which a step's own template is kept in its metadata."""
MAX_WRITTEN_BYTES, MAX_WRITTEN_DEPTH = 64 * 1024, 31

_OPERATIONS = ("createImage", "createVariant")
_INPUTS: Mapping[str, type[msgspec.Struct]] = {
    "textToImage": TextToImageInput,
    "imageUpscaler": ImageUpscalerInput,
}


def read_template(content: Mapping[str, Any]) -> TemplateRead:
    """A workflow from plain JSON. Raises InvalidRequest, naming each field that is wrong or has no effect here."""
    faults = field_faults(content, WorkflowTemplate)
    if "steps" in faults or not isinstance(content.get("steps"), list):
        raise InvalidRequest(faults or {"steps": "is required"})
    steps: list[StepRead | None] = []
    for place, step in enumerate(cast(list[Any], content["steps"])):
        found = _read_step(cast(dict[str, Any], step), f"steps[{place}]", faults)
        steps.append(found)
    if faults:
        raise InvalidRequest(faults)
    template = msgspec.convert(content, WorkflowTemplate)
    read = tuple(step for step in steps if step is not None)
    faults = _not_for_the_workflow(template) | _written("metadata", template.metadata)
    priority = _priority(read, faults)
    if faults:
        raise InvalidRequest(faults)
    return TemplateRead(template=template, steps=read, priority=priority, ignored=_ignored(template, read))


def step_of(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """A workflow of one step, from its input alone."""
    return {"steps": [{"$type": kind, "name": kind, "input": dict(content)}]}


def check_written(field: str, written: Written) -> None:
    """Raises InvalidRequest for what is too long, or nested too deeply, to be kept beside a workflow or a step."""
    if faults := _written(field, written):
        raise InvalidRequest(faults)


def _read_step(content: dict[str, Any], place: str, faults: dict[str, str]) -> StepRead | None:
    found = field_faults(content, StepTemplate, f"{place}.")
    faults |= found
    # Its type first: fields of a type that is not drawn here would each be called unknown.
    kind, given = content.get("$type"), content.get("input")
    if not isinstance(kind, str) or not isinstance(given, dict):
        return None
    record = _input_of(kind, cast(dict[str, Any], given), place, faults)
    if record is None:
        return None
    wrong = field_faults(cast(dict[str, Any], given), record, f"{place}.input.")
    faults |= wrong
    if wrong or found:
        return None
    template = msgspec.convert(content, StepTemplate)
    read = msgspec.convert(given, record)
    faults |= _not_for_an_input(read, place) | _written(f"{place}.metadata", template.metadata)
    return StepRead(template=template, input=cast(Any, read))


def _input_of(kind: str, given: Mapping[str, Any], place: str, faults: dict[str, str]) -> type[msgspec.Struct] | None:
    if kind in _INPUTS:
        return _INPUTS[kind]
    if kind != "imageGen":
        faults[f"{place}.$type"] = why_not(kind)
        return None
    engine, operation = given.get("engine"), given.get("operation")
    if engine not in ENGINES:
        faults[f"{place}.input.engine"] = (
            f"'{str(engine)[:40]}' is no engine that draws here; those are: {', '.join(ENGINES)}"
        )
        return None
    if operation not in _OPERATIONS:
        faults[f"{place}.input.operation"] = (
            f"'{str(operation)[:40]}' is not drawn here; there are: {', '.join(_OPERATIONS)}"
        )
        return None
    return SdCppInput if engine == "sdcpp" else ComfyInput


def _not_for_the_workflow(template: WorkflowTemplate) -> dict[str, str]:
    faults = {name: reason for name, reason in NOT_FOR_THE_WORKFLOW.items() if getattr(template, name)}
    if "tips" in faults and not any((template.tips or {}).values()):
        del faults["tips"]
    if template.allow_mature_content is False:
        faults["allowMatureContent"] = UNRATED
    return faults


def _not_for_an_input(read: msgspec.Struct, place: str) -> dict[str, str]:
    names = {field.name: field.encode_name for field in msgspec.structs.fields(read)}
    faults = {
        f"{place}.input.{names[name]}": reason for name, reason in NOT_FOR_AN_INPUT.items() if getattr(read, name, None)
    }
    match read:
        case TextToImageInput(additional_networks=networks) if networks:
            for air, network in networks.items():
                where = f"{place}.input.additionalNetworks[{air[:100]}]"
                if network.trigger_word:
                    faults[f"{where}.triggerWord"] = "textual inversions are not drawn with here"
                if network.type and network.type.casefold() not in ("lora", "locon", "dora", "lycoris"):
                    faults[f"{where}.type"] = f"'{network.type[:40]}' is not drawn with here; LoRAs and their kin are"
        case SdCppInput(u_cache=cache) if cache not in (None, "off"):
            faults[f"{place}.input.uCache"] = "no UNet call is left out here: 'off' alone can be asked for"
        case ImageUpscalerInput(model=model) if model is not None:
            faults[f"{place}.input.model"] = "no upscaling model is installed: without one pictures are resampled"
        case _:
            pass
    return faults


def _written(field: str, written: Written | None) -> dict[str, str]:
    if written is None:
        return {}
    if TEMPLATE_KEY in written:
        return {f"{field}.{TEMPLATE_KEY}": "is a name of our own; use another"}
    if is_nested_deeper(written, MAX_WRITTEN_DEPTH):
        return {field: f"must not be nested more than {MAX_WRITTEN_DEPTH} deep"}
    if len(msgspec.json.encode(written)) > MAX_WRITTEN_BYTES:
        return {field: f"must have {MAX_WRITTEN_BYTES:,} bytes at most"}
    return {}


def _priority(steps: tuple[StepRead, ...], faults: dict[str, str]) -> Priority:
    """That of all steps: a workflow is drawn as a whole."""
    named = [step.template.priority or Priority.NORMAL for step in steps]
    for place, priority in enumerate(named):
        if priority is not named[0]:
            faults[f"steps[{place}].priority"] = (
                f"is {priority}, and that of the first step {named[0]}; all steps of a workflow have one priority here"
            )
    return named[0] if named else Priority.NORMAL


def _ignored(template: WorkflowTemplate, steps: tuple[StepRead, ...]) -> tuple[str, ...]:
    names = {field.name: field.encode_name for field in msgspec.structs.fields(WorkflowTemplate)}
    found = [names[name] for name in IGNORED if getattr(template, name) is not None]
    for place, step in enumerate(steps):
        found += [f"steps[{place}].{name}" for name in IGNORED_OF_STEPS if getattr(step.template, name) is not None]
    return tuple(found)
