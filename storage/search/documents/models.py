"""Models as search finds them: what is read of a row, the words and numbers an engine keeps of it, what is encoded."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from html import unescape

from storage.records.search.relevance import WordPlace
from storage.records.search.search import Facet, IndexDocument, Rank, facet_value
from storage.records.search.search_documents import ModelDocument
from storage.records.search.tokens import whole, words_of

MAX_BODY = 20_000
"""Letters of a description that are searched."""
MAX_ENCODED = 2_000
"""Letters of a description that are encoded; an encoder reads a few hundred tokens."""
_TAG = re.compile(r"<[^<>]*>")
# Many documents share a value.
_kept_value = lru_cache(maxsize=65_536)(facet_value)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def build(model: ModelDocument, vector: bytes = b"") -> IndexDocument:
    """What an engine keeps of a model."""
    return IndexDocument(
        id=model.id,
        revision=model.revision,
        name=whole(model.name),
        words={
            WordPlace.NAME: words_of(model.name),
            WordPlace.LABELS: words_of(
                *model.tags, *model.trained_words, model.creator, model.type, *model.base_models
            ),
            WordPlace.DETAILS: words_of(*model.version_names, *model.file_names),
            WordPlace.BODY: words_of(plain_text(model.description)[:MAX_BODY]),
        },
        hashes=tuple(sorted({digits.lower() for digits in model.hashes})),
        values={
            Facet.TYPE: (model.type,),
            Facet.BASE_MODEL: kept(Facet.BASE_MODEL, model.base_models),
            Facet.TAG: kept(Facet.TAG, model.tags),
            Facet.CREATOR: kept(Facet.CREATOR, (model.creator,)),
        },
        levels=model.levels,
        published_at=microseconds(model.published_at),
        ranks={
            Rank.LIKES: model.likes,
            Rank.DOWNLOADS: model.downloads,
            Rank.COMMENTS: model.comments,
            Rank.COLLECTED: model.collected,
            Rank.PICTURES: model.pictures,
            Rank.NEWEST: microseconds(model.published_at),
        },
        vector=vector,
    )


def encoded_text(model: ModelDocument) -> str:
    """What a model's vector is made from. Changing this changes every text hash, so vectors are rebuilt."""
    labels = ", ".join((*model.tags, *model.trained_words))
    about = plain_text(model.description)[:MAX_ENCODED]
    return f"{model.name}. {model.type} for {', '.join(model.base_models)}. {labels}. {about}".strip()


def plain_text(description: str) -> str:
    """A description without its markup, on one line."""
    if "<" not in description and "&" not in description:
        return " ".join(description.split())
    # Tags go first: what an author wrote as &lt;b&gt; is text, and must not be taken for one afterwards.
    return " ".join(unescape(_TAG.sub(" ", description)).split())


def microseconds(moment: datetime) -> int:
    """Since 1970."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def kept(facet: Facet, values: Iterable[str]) -> tuple[str, ...]:
    """Values of a facet as documents keep them."""
    return tuple(sorted({_kept_value(facet, value) for value in values}))
