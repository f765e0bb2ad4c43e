"""Civitai's orchestration v2 in front of generations: a translation under our keys, limits and problems."""

from __future__ import annotations

from litestar import Router

from platform_api.orchestration.blobs import Blobs
from platform_api.orchestration.recipes import Recipes
from platform_api.orchestration.refusals import HANDLERS
from platform_api.orchestration.resources import Resources
from platform_api.orchestration.unserved import Unserved
from platform_api.orchestration.workflow_parts import WorkflowParts
from platform_api.orchestration.workflows import Workflows
from storage.orchestration_settings import OrchestrationSettings

RESOURCES = (Workflows, WorkflowParts, Recipes, Blobs, Resources, Unserved)


def orchestration(settings: OrchestrationSettings) -> list[Router]:
    """The routes below /v2; none while they are switched off."""
    return [Router("/v2", route_handlers=list(RESOURCES), exception_handlers=HANDLERS)] if settings.enabled else []
