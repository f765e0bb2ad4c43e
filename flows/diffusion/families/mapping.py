"""Every model family by its name in `darkroom.json` and in a recipe."""

from flows.diffusion.families.protocol import Family
from flows.diffusion.families.sd1 import Sd1
from storage.errors import WeightsRefused

FAMILIES: dict[str, Family] = {"sd1": Sd1()}


def family_named(name: str) -> Family:
    """The family `name`. Raises WeightsRefused naming the known ones."""
    if name not in FAMILIES:
        raise WeightsRefused("unknown_family", f"model family '{name}' is unknown; known are: {', '.join(FAMILIES)}.")
    return FAMILIES[name]
