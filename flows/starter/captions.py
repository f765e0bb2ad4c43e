"""Words for a picture of the small world, in the forms people prompt with."""

import numpy as np

from flows.starter.world import PATTERNS, SCENES, Picture, Placed

EMPTY_SHARE = 0.1
SCENE_SHARE = 0.75
IDENTIFIER_SHARE = 0.85

_FORMS = ("a photo of {a} {thing}", "a photo of {thing}", "{a} {thing}", "a picture of {a} {thing}", "{thing}")
_FORM_SHARES = (0.45, 0.2, 0.15, 0.1, 0.1)


def _article(words: str) -> str:
    return "an" if words[0] in "aeiou" else "a"


def describe(thing: Placed, rng: np.random.Generator) -> str:
    """The thing without article: its class word, usually with its look in the slot before the noun or after it."""
    noun, look = thing.subject.class_word, thing.subject.look
    if thing.identifier is not None and rng.random() < IDENTIFIER_SHARE:
        return f"{thing.identifier} {noun}"
    # The slot before the noun must matter: a fine-tune can only teach an identifier there if many words there have
    # meant something. Left meaningless in pretraining, the word for a subject was ignored, whatever was trained.
    kind = rng.random()
    if kind < 0.15:
        return noun
    if look.mark_colour is None:
        return f"{look.colour} {noun}" if kind < 0.8 else f"plain {look.colour} {noun}"
    if kind < 0.25:
        return f"{look.colour} {noun}"
    if kind < 0.4:
        return f"{look.pattern} {noun}"
    if kind < 0.5:
        return f"{look.pattern} {look.colour} {noun}"
    if kind < 0.7:
        return f"{look.pattern} {look.colour} and {look.mark_colour} {noun}"
    return f"{look.colour} {noun} with {look.mark_colour} {PATTERNS[look.pattern]}"


def caption(picture: Picture, rng: np.random.Generator) -> str:
    """One caption of the picture; about one in ten is empty, which teaches the unconditional prediction."""
    if rng.random() < EMPTY_SHARE:
        return ""
    first, *others = picture.things
    thing = describe(first, rng)
    words = _FORMS[rng.choice(len(_FORMS), p=_FORM_SHARES)].format(a=_article(thing), thing=thing)
    for other in others:
        thing = describe(other, rng)
        words += f" and {_article(thing)} {thing}"
    return f"{words} {picture.scene}" if rng.random() < SCENE_SHARE else words


def scene_prompt(identifier: str, class_word: str, scene: str) -> str:
    """The prompt that puts an identified subject into a scene: "a photo of sks mug on the beach"."""
    if scene not in SCENES:
        raise ValueError(f"scene {scene!r} is not in this world; choose one of {', '.join(SCENES)}.")
    return " ".join(word for word in ("a photo of", identifier, class_word, scene) if word)
