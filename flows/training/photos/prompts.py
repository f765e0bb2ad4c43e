"""What a text encoder does not read as it is meant."""

from __future__ import annotations

from collections.abc import Sequence

from flows.diffusion.families.protocol import Components, Family
from storage.records.jobs.training import TrainingRecipe


def prompt_warnings(
    family: Family, components: Components, recipe: TrainingRecipe, prompts: Sequence[str]
) -> list[str]:
    """In words: an identifier that is several tokens, and prompts (of photos, and the class's) that are cut off."""
    found: list[str] = []
    tokens = len(family.identifier_tokens(components, recipe.identifier))
    if tokens > 1:
        found.append(
            f"the identifier '{recipe.identifier}' is {tokens} tokens, which other words share; one of a single token "
            "learns faster"
        )
    longest = components.tokenizer.model_max_length
    for prompt in dict.fromkeys((*prompts, recipe.class_prompt)):
        length = len(components.tokenizer(prompt).input_ids)
        if length > longest:
            found.append(f"'{prompt}' is {length} tokens; the text encoder reads the first {longest}. Shorten it.")
    return found
