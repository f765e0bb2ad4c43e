"""A workflow as clients of Civitai's orchestration v2 write it: fields and names are those of `@civitai/client`.

What stands here can be asked for. Step types and engines that this platform does not have are in `left_out`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from storage.records.generation.prices import Priority
from storage.records.generation.step_fields import MAX_ADAPTERS
from storage.records.generation.step_requests import MAX_WORKFLOW_STEPS

MAX_TAGS, MAX_TAG_LENGTH = 10, 200
Tag = Annotated[str, Meta(min_length=1, max_length=MAX_TAG_LENGTH)]
Factor = Annotated[int, Meta(ge=1)]
"""Of the number of pictures, which is their product."""
Written = dict[str, Any]
"""JSON of the caller's own, of which nothing is drawn."""


class Reference(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"step": "$ref"}):
    """A picture that an earlier step makes: the step's name, and the path of the picture in that step."""

    step: Annotated[str, Meta(min_length=1, max_length=65)]
    path: Annotated[str, Meta(max_length=100, examples=["output.images[0].url"])] = "output.images[0].url"


PictureInput = str | Reference
"""A blob's id or address, a data URL, Base64, or a picture of an earlier step."""


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What every step type that draws with a model takes."""

    model: str
    prompt: str
    negative_prompt: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    seed: int | None = None
    quantity: Factor | None = None
    width: int | None = None
    height: int | None = None
    output_format: str | None = None
    image_metadata: str | None = None
    control_nets: list[Any] | None = None


class NetworkParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """How an additional network is used."""

    strength: float | None = None
    trigger_word: str | None = None
    type: str | None = None


class TextToImageInput(Input, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`textToImage`. The last field is spelled as their document spells it."""

    batch_size: Factor | None = None
    additional_networks: Annotated[dict[str, NetworkParameters], Meta(max_length=MAX_ADAPTERS)] | None = None
    scheduler: str | None = None
    clip_skip: int | None = None
    engine: str | None = None
    source_image: PictureInput | None = None
    source_image_denoise_strenght: float | None = None


class ImageGenInput(Input, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What `imageGen` takes of both engines that draw here."""

    engine: str
    ecosystem: str
    operation: str
    loras: Annotated[dict[str, float], Meta(max_length=MAX_ADAPTERS)] | None = None
    vae_model: str | None = None
    clip_skip: int | None = None
    image: PictureInput | None = None


class SdCppInput(ImageGenInput, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`imageGen` with the engine `sdcpp`."""

    sample_method: str | None = None
    schedule: str | None = None
    embeddings: list[str] | None = None
    u_cache: str | None = None
    strength: float | None = None


class ComfyInput(ImageGenInput, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`imageGen` with the engine `comfy`."""

    sampler: str | None = None
    scheduler: str | None = None
    denoise_strength: float | None = None


class ImageUpscalerInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """`imageUpscaler`: each repeat doubles width and height."""

    image: PictureInput
    model: str | None = None
    number_of_repeats: Annotated[int, Meta(ge=1, le=3)] = 1


class StepTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"kind": "$type"}):
    """One step, its input unread."""

    kind: Annotated[str, Meta(min_length=1, max_length=64)]
    input: Written
    name: str | None = None
    priority: Priority | None = None
    timeout: str | None = None
    retries: int | None = None
    metadata: Written | None = None


class WorkflowTemplate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A workflow, its steps unread."""

    steps: Annotated[list[Written], Meta(min_length=1, max_length=MAX_WORKFLOW_STEPS)]
    metadata: Written | None = None
    tags: Annotated[list[Tag], Meta(max_length=MAX_TAGS)] | None = None
    external_id: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z", examples=["order-17"])] | None = None
    callbacks: list[Any] | None = None
    tips: dict[str, float] | None = None
    arguments: Written | None = None
    nsfw_level: str | None = None
    experimental: bool | None = None
    allow_mature_content: bool | None = None
    upgrade_mode: str | None = None
    currencies: list[str] | None = None
    ephemeral: bool | None = None


class StepRead(msgspec.Struct, frozen=True, kw_only=True):
    """One step, read: what it asks for by its type, and everything around it."""

    template: StepTemplate
    input: TextToImageInput | SdCppInput | ComfyInput | ImageUpscalerInput


class TemplateRead(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow, read. `ignored` names fields that say nothing here, such as the currency that nobody pays in."""

    template: WorkflowTemplate
    steps: tuple[StepRead, ...]
    priority: Priority
    ignored: tuple[str, ...]


PICTURES: Mapping[type[msgspec.Struct], str] = {
    TextToImageInput: "source_image",
    SdCppInput: "image",
    ComfyInput: "image",
    ImageUpscalerInput: "image",
}
"""The field of each input that is a picture."""


def picture_of(step: StepRead) -> PictureInput | None:
    """The picture that a step goes on from."""
    return getattr(step.input, PICTURES[type(step.input)])


def picture_field(step: StepRead) -> str:
    """What a step's picture is called in JSON."""
    return msgspec.structs.fields(step.input)[
        type(step.input).__struct_fields__.index(PICTURES[type(step.input)])
    ].encode_name
