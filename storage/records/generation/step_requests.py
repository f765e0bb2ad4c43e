"""What a client asks for: a step, or a workflow of steps whose pictures go into later ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta

from storage.records.generation import step_fields as fields
from storage.records.generation.drawings import Operation, PictureFormat
from storage.records.generation.prices import Priority

MAX_WORKFLOW_STEPS = 16
Tags = Annotated[
    tuple[Annotated[str, Meta(min_length=1, max_length=200)], ...],
    Meta(max_length=10, description="Words to find it by.", examples=[["summer"]]),
]


class StepRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """One step. What is left out is the model's own default, or the family's."""

    peer_names: ClassVar[Mapping[str, str]] = fields.PEER_NAMES

    name: fields.StepName | None = None
    operation: fields.OperationName = Operation.TXT2IMG
    model: fields.VersionNumber | fields.Air | None = None
    adapters: fields.Adapters = ()
    prompt: fields.Prompt = ""
    negative_prompt: fields.NegativePrompt = ""
    wildcards: fields.WildcardLists = {}
    scheduler: fields.SchedulerText | None = None
    spacing: fields.SpacingText | None = None
    eta: fields.Eta | None = None
    steps: fields.DenoisingSteps | None = None
    guidance_scale: fields.GuidanceScale | None = None
    guidance_rescale: fields.GuidanceRescale = 0.0
    seed: fields.SeedNumber | None = None
    width: fields.Width | None = None
    height: fields.Height | None = None
    count: fields.Count = 1
    clip_skip: fields.ClipSkip = 0
    image: fields.PictureSource | None = None
    mask: fields.PictureSource | None = None
    strength: fields.DenoisingStrength | None = None
    format: fields.Format = PictureFormat.PNG
    exact: fields.Exact = False
    shape: fields.BatchShape = 0
    backend: fields.BackendName | None = None


class WorkflowRequest(StepRequest, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """A step with all of its fields here, or several under `workflow`.

    `externalId` is the caller's own name of it: the same one again is the same workflow.
    """

    workflow: (
        Annotated[
            tuple[StepRequest, ...],
            Meta(min_length=1, max_length=MAX_WORKFLOW_STEPS, description="The steps, each with its own fields."),
        ]
        | None
    ) = None
    priority: Annotated[Priority, Meta(description="How soon it is drawn beside others; it changes the price.")] = (
        Priority.NORMAL
    )
    tags: Tags = ()
    external_id: (
        Annotated[
            str,
            Meta(
                pattern=r"^[A-Za-z0-9_-]{1,128}\Z",
                description="Your own name of the workflow: sent again, it starts no second one.",
                examples=["order-17"],
            ),
        ]
        | None
    ) = None


class GenerationChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """What to write on a generation from now on; what is left out stays."""

    tags: Tags | msgspec.UnsetType = msgspec.UNSET
    metadata: (
        Annotated[
            dict[str, Any],
            Meta(
                max_length=100,
                description="Anything of your own; up to 32 lists and objects inside each other.",
                examples=[{"album": "summer"}],
                extra={"lines": True},
            ),
        ]
        | msgspec.UnsetType
    ) = msgspec.UNSET
