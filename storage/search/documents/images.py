"""Images as search finds them: what they were drawn from, with which model, by whom."""

from __future__ import annotations

from storage.records.search.relevance import WordPlace
from storage.records.search.search import Facet, IndexDocument, Rank
from storage.records.search.search_documents import ImageDocument
from storage.records.search.tokens import whole, words_of
from storage.search.documents.models import MAX_BODY, MAX_ENCODED, kept, microseconds

MAX_NAME = 2_000
"""Letters of a prompt that are compared with a whole query."""


def build(image: ImageDocument, vector: bytes = b"") -> IndexDocument:
    """What an engine keeps of an image. Its prompt is its name."""
    taken = microseconds(image.created_at)
    return IndexDocument(
        id=image.id,
        revision=image.revision,
        name=whole(image.prompt[:MAX_NAME]),
        words={
            WordPlace.NAME: words_of(image.prompt[:MAX_BODY]),
            WordPlace.LABELS: words_of(*image.tags, image.creator, image.type, image.base_model),
            WordPlace.DETAILS: words_of(image.model_name, image.version_name),
            WordPlace.BODY: words_of(" ".join(image.details)[:MAX_BODY]),
        },
        hashes=(image.sha256,),
        values={
            Facet.TYPE: (image.type,),
            Facet.BASE_MODEL: (image.base_model,),
            Facet.TAG: kept(Facet.TAG, image.tags),
            Facet.CREATOR: kept(Facet.CREATOR, (image.creator,)),
            Facet.SHAPE: (shape(image.width, image.height),),
        },
        levels=image.level,
        published_at=taken,
        ranks={
            Rank.LIKES: image.reactions,
            Rank.COMMENTS: image.comments,
            Rank.COLLECTED: image.collected,
            Rank.NEWEST: taken,
            Rank.WIDTH: image.width,
            Rank.HEIGHT: image.height,
            Rank.PIXELS: image.width * image.height,
        },
        vector=vector,
    )


def encoded_text(image: ImageDocument) -> str:
    """What an image's vector is made from. Changing this changes every text hash, so vectors are rebuilt."""
    drawn = image.prompt[:MAX_ENCODED] or image.model_name
    return f"{drawn}. {', '.join(image.tags)}".strip()


def shape(width: int, height: int) -> str:
    """landscape, portrait or square."""
    return "square" if width == height else "landscape" if width > height else "portrait"
