"""A seeded catalogue to search in: models written by hand for the golden queries, and many made of invented words."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from storage.records.search_documents import ModelDocument

START = datetime(2025, 1, 1, tzinfo=UTC)
SYLLABLES = ("zor", "vak", "mil", "nop", "tuz", "kreb", "lum", "dri", "quo", "fen", "gax", "hyv", "jub", "wex", "yop")
TYPES = ("Checkpoint", "LORA", "TextualInversion", "VAE", "Controlnet")
BASES = ("SD 1.5", "SDXL 1.0", "Pony", "Illustrious", "Flux.1 D")


def written() -> dict[str, ModelDocument]:
    """The models made by hand, by key. Their ids begin at 1; likes fall with the id."""
    models: dict[str, ModelDocument] = {}
    lines = Path(__file__).with_suffix(".txt").read_text().splitlines()
    for number, line in enumerate((line for line in lines if not line.startswith("#")), 1):
        key, name, creator, kind, bases, tags, trained, files, description = (part.strip() for part in line.split("|"))
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


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
