"""Creators as search finds them: by their name, and by what they have published."""

from __future__ import annotations

from storage.records.search.relevance import WordPlace
from storage.records.search.search import Facet, IndexDocument, Rank
from storage.records.search.search_documents import CreatorDocument
from storage.records.search.tokens import whole, words_of
from storage.search.documents.models import kept, microseconds


def build(creator: CreatorDocument, vector: bytes = b"") -> IndexDocument:
    """What an engine keeps of a creator."""
    newest = microseconds(creator.published_at)
    return IndexDocument(
        id=creator.id,
        revision=creator.revision,
        name=whole(creator.name),
        words={WordPlace.NAME: words_of(creator.name)},
        hashes=(),
        values={
            Facet.TYPE: kept(Facet.TYPE, creator.types),
            Facet.BASE_MODEL: kept(Facet.BASE_MODEL, creator.base_models),
        },
        levels=creator.levels,
        published_at=newest,
        ranks={Rank.MODELS: creator.models, Rank.NEWEST: newest},
        vector=vector,
    )
