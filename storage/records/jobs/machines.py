"""The machine that does a job's work, and what it adds to the job's recipe: resolved by the worker that claims it.

Where a request comes in says nothing of where it is carried out: the API may run on a host without a GPU, with other
libraries or none at all. Later attempts keep what the first one resolved, so that they go on with equal numbers.
"""

from __future__ import annotations

from typing import Any, cast

import msgspec

from storage.records.jobs.jobs import JobKind
from storage.records.jobs.training import TrainingJobRequest


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What of a machine changes the bytes of its work.

    device: `cpu`, or the GPU's name. threads: of one process, at least 1. libraries: their versions, by name.
    """

    device: str
    threads: int
    libraries: dict[str, str]


class ResolvedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A job's request with nothing left open, as plain JSON, and its recipe's hash (SHA-256, 64 hex digits)."""

    request: dict[str, Any]
    recipe_hash: str


def resolve_on(machine: Machine, kind: JobKind, request: dict[str, object]) -> ResolvedRequest | None:
    """The request with the machine in its recipe; None when an earlier claim has resolved it.

    Raises msgspec.ValidationError for a request that is none of its kind.
    """
    facts = msgspec.structs.asdict(machine)
    if kind is JobKind.TRAINING:
        asked = msgspec.convert(request, TrainingJobRequest)
        # No machine has 0 threads, so that number says that the recipe is still open.
        if asked.recipe.threads:
            return None
        recipe = msgspec.structs.replace(asked.recipe, **facts)
        whole = msgspec.to_builtins(msgspec.structs.replace(asked, recipe=recipe))
        # What only a later release knows stays in the row: the next attempt may be of that one.
        whole = {**request, **whole, "recipe": {**cast(dict[str, Any], request["recipe"]), **whole["recipe"]}}
        return ResolvedRequest(request=whole, recipe_hash=recipe.fingerprint())
    # A drawing leaves nothing open: what drew a picture stands in the picture.
    return None
