"""A seeded catalogue to search in: models written by hand for the golden queries, and many made of invented words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.records.search.search_documents import CreatorDocument, ImageDocument, ModelDocument

START = datetime(2025, 1, 1, tzinfo=UTC)
SYLLABLES = ("zor", "vak", "mil", "nop", "tuz", "kreb", "lum", "dri", "quo", "fen", "gax", "hyv", "jub", "wex", "yop")
TYPES = ("Checkpoint", "LORA", "TextualInversion", "VAE", "Controlnet")
BASES = ("SD 1.5", "SDXL 1.0", "Pony", "Illustrious", "Flux.1 D")


def written() -> dict[str, ModelDocument]:
    """The models made by hand, by key. Their ids begin at 1; likes fall with the id."""
    models: dict[str, ModelDocument] = {}
    for number, parts in _lines("corpus.txt"):
        key, name, creator, kind, bases, tags, trained, files, description = parts
        models[key] = ModelDocument(
            id=number,
            revision=1,
            name=name,
            creator=creator,
            type=kind,
            base_models=_list(bases),
            tags=_list(tags),
            trained_words=_list(trained),
            version_names=("v1.0",) if key == "detail" else (),
            file_names=_list(files),
            hashes=(f"{number:08x}" * 8, f"{number * 7919:010X}"),
            description=f"<p>{description}</p>",
            levels=(1, 2, 3, 4, 28)[number % 5],
            published_at=START + timedelta(hours=number * 37 % 101),
            likes=1000 - number,
            downloads=number * 7919 % 997,
        )
    return models


def invented(count: int, seed: int, first_id: int = 1001) -> Iterator[ModelDocument]:
    """Models of words that mean nothing, many of them alike, with every kind of tie."""
    chance = random.Random(seed)
    words = sorted({"".join(chance.choices(SYLLABLES, k=chance.randint(1, 3))) for _ in range(count // 2)})
    for number in range(count):
        some = [chance.choice(words) + chance.choice(("", "", "", "s", "es")) for _ in range(12)]
        yield ModelDocument(
            id=first_id + number,
            revision=1,
            name=" ".join(some[: chance.randint(1, 3)]),
            creator=chance.choice(("Ada", "bob", "cyd")) + str(chance.randint(1, 9)),
            type=chance.choice(TYPES),
            base_models=tuple(chance.sample(BASES, chance.randint(1, 2))),
            tags=tuple(chance.sample(words[:20], chance.randint(0, 4))),
            trained_words=tuple(some[3 : 3 + chance.randint(0, 2)]),
            file_names=(f"{some[5]}_v{chance.randint(1, 3)}.safetensors",),
            description=" ".join(some[6 : 6 + chance.randint(0, 6)]),
            levels=chance.choice((1, 1, 1, 2, 3, 4, 8, 16, 28)),
            published_at=START + timedelta(days=chance.randint(0, 30)),
            likes=chance.choice((0, 0, 1, 5, chance.randint(0, 100))),
            downloads=chance.choice((0, chance.randint(0, 20))),
            comments=chance.randint(0, 3),
            collected=chance.randint(0, 3),
            pictures=chance.randint(0, 3),
        )


def written_images() -> dict[str, ImageDocument]:
    """The images made by hand, by key; reactions fall with the id."""
    found: dict[str, ImageDocument] = {}
    for number, (key, prompt, details, model, creator, base, tags, size) in _lines("corpus_images.txt"):
        width, height = size.split("x")
        found[key] = ImageDocument(
            id=number,
            revision=1,
            prompt=prompt,
            details=_list(details),
            model_name=model,
            version_name="v1",
            creator=creator,
            type="LORA",
            base_model=base,
            tags=_list(tags),
            sha256=f"{number:064x}",
            level=(1, 2, 4, 8, 16)[number % 5],
            width=int(width),
            height=int(height),
            created_at=START + timedelta(hours=number * 37 % 101),
            reactions=100 - number,
        )
    return found


def invented_images(count: int, seed: int, first_id: int = 1001) -> Iterator[ImageDocument]:
    """Images of the invented models, with every kind of tie."""
    chance = random.Random(seed)
    for number, model in enumerate(invented(count, seed, first_id)):
        yield ImageDocument(
            id=first_id + number,
            revision=1,
            prompt=chance.choice((model.name, model.description)),
            details=model.trained_words,
            model_name=model.name,
            creator=model.creator,
            type=model.type,
            base_model=model.base_models[0],
            tags=model.tags,
            sha256=f"{number:064x}",
            level=chance.choice((1, 1, 2, 4, 8, 16)),
            width=chance.choice((512, 768, 1024)),
            height=chance.choice((512, 768, 1024)),
            created_at=model.published_at,
            reactions=model.likes,
            comments=model.comments,
            collected=model.collected,
        )


def written_creators() -> dict[str, CreatorDocument]:
    """The creators made by hand, by key; the number of models falls with the id."""
    return {
        key: CreatorDocument(
            id=number,
            revision=1,
            name=name,
            types=_list(types),
            base_models=_list(bases),
            models=100 - number,
            published_at=START + timedelta(hours=number * 37 % 101),
        )
        for number, (key, name, types, bases) in _lines("corpus_creators.txt")
    }


def invented_creators(count: int, seed: int, first_id: int = 1001) -> Iterator[CreatorDocument]:
    """Creators named as the invented models are, with every kind of tie."""
    for number, model in enumerate(invented(count, seed, first_id)):
        yield CreatorDocument(
            id=first_id + number,
            revision=1,
            name=model.name,
            types=(model.type,),
            base_models=model.base_models,
            levels=model.levels,
            models=1 + model.comments,
            published_at=model.published_at,
        )


def _lines(name: str) -> Iterator[tuple[int, list[str]]]:
    """The parts of each line of a file beside this one, numbered from 1."""
    lines = Path(__file__).with_name(name).read_text().splitlines()
    for number, line in enumerate((line for line in lines if not line.startswith("#")), 1):
        yield number, [part.strip() for part in line.split("|")]


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
