"""Whether everything that trains has got a gradient: what has none would stay as it was, in silence."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from flows.diffusion.families.protocol import Components, Family
from flows.training.methods.protocol import ParameterGroup
from storage.errors import JobCannotSucceed
from storage.records.jobs.training import TrainingRecipe


class WeightsWithoutGradient(JobCannotSucceed):
    """Weights that were to train got no gradient from the first step."""

    code = "weights_without_gradient"


def check_gradients(
    groups: Iterable[ParameterGroup], family: Family, components: Components, recipe: TrainingRecipe
) -> None:
    """Refuse to go on when a parameter that still trains has no gradient, though the model's prediction depends on it.

    Raises WeightsWithoutGradient with the first names.
    """
    # Where all captions of a step are dropped, a text encoder may have had no part in it.
    dropped = recipe.caption_dropout > 0
    missing = [name for group in groups for name in _without_gradient(group, dropped and group.name != "unet")]
    if missing:
        patterns = family.unused_weights(components)
        missing = [name for name in missing if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    if missing:
        raise WeightsWithoutGradient(
            f"{len(missing)} weights that were to train got no gradient, {', '.join(missing[:3])} among them: they "
            "would stay as they are. This is a fault of the trainer; no step was taken. Report it with the job's "
            "recipe; until it is fixed, name other weights in trainOnly."
        )


def _without_gradient(group: ParameterGroup, may_have_none: bool) -> list[str]:
    trained = {name: one for name, one in group.parameters.items() if one.requires_grad}
    missing = [name for name, one in trained.items() if one.grad is None]
    return [] if may_have_none and len(missing) == len(trained) else missing
