"""What a text encoder does not read as it is meant."""

from __future__ import annotations

from collections.abc import Sequence

from flows.diffusion.families.protocol import Components, Family
from storage.records.jobs.training import TrainingRecipe


def prompt_warnings(
    family: Family, components: Components, recipe: TrainingRecipe, prompts: Sequence[str], positions: Sequence[int]
) -> list[str]:
    """In words: an identifier that is several tokens, and prompts (of photos, and the class's) that are cut off.

    Photos are named by their `positions` in the data set, as the API shows them: one for each prompt, in any order.
    """
    found: list[str] = []
    tokens = len(family.identifier_tokens(components, recipe.identifier))
    if tokens > 1:
        found.append(
            f"the identifier '{recipe.identifier}' is {tokens} tokens, which other words share; one of a single token "
            "learns faster"
        )
    longest = components.tokenizer.model_max_length
    # Not the prompt itself: a caption may be private, and this is logged.
    photos: dict[str, list[int]] = {}
    for prompt, position in zip(prompts, positions, strict=True):
        photos.setdefault(prompt, []).append(position)
    for prompt in dict.fromkeys((*prompts, recipe.class_prompt)):
        length = len(components.tokenizer(prompt).input_ids)
        if length > longest:
            whose = _prompt_of(photos[prompt]) if prompt in photos else "the class's prompt"
            found.append(f"{whose} is {length} tokens; the text encoder reads the first {longest}. Shorten it.")
    return found


def _prompt_of(photos: Sequence[int]) -> str:
    more = f" and {len(photos) - 1} more" if len(photos) > 1 else ""
    return f"the prompt of the photo at position {min(photos)} of the data set{more}"
