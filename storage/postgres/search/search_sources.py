"""Rows as search reads them: what is listed becomes documents, what is not becomes removals, both with a revision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from storage.postgres.connection import Query, Rows, Script, as_record, column, load_statements, many
from storage.records.search.search import Kind, Removal
from storage.records.search.search_documents import CreatorDocument, ImageDocument, ModelDocument

D = TypeVar("D")

SQL = load_statements(__file__)

LISTINGS: Mapping[Kind, str] = {
    Kind.MODEL: "models",
    Kind.IMAGE: "image_listings",
    Kind.CREATOR: "creator_listings",
}
"""The table or view of each kind that says which ids are listed, and at which revision."""


def models(ids: Sequence[int]) -> Script[tuple[list[ModelDocument], list[Removal]]]:
    """Models of one moment."""
    return _read("models", ids, ModelDocument)


def images(ids: Sequence[int]) -> Script[tuple[list[ImageDocument], list[Removal]]]:
    """Images of one moment."""
    return _read("images", ids, ImageDocument)


def creators(ids: Sequence[int]) -> Script[tuple[list[CreatorDocument], list[Removal]]]:
    """Creators of one moment, by the numbers of their accounts."""
    return _read("creators", ids, CreatorDocument)


def shards(kind: Kind, size: int) -> Query[list[int]]:
    """The first ids of shards of `size` listed rows, in order."""
    return column(_of(kind, "shards"), {"size": size}, int)


def listed(kind: Kind, first: int, end: int | None) -> Query[list[int]]:
    """The ids of listed rows from `first` to before `end`; None: to the last."""
    return column(_of(kind, "listed"), {"first": first, "end": end}, int)


def revisions(kind: Kind, after: int, limit: int) -> Query[list[tuple[int, int]]]:
    """Ids and revisions of listed rows above `after`, in order."""
    parameters = {"after": after, "limit": limit}
    return Query(_of(kind, "revisions"), parameters, lambda rows: [(row["id"], row["revision"]) for row in rows])


def unlisted(kind: Kind, ids: Sequence[int]) -> Query[list[Removal]]:
    """Those of `ids` that are not listed."""
    return many(_of(kind, "unlisted"), {"ids": list(ids)}, Removal)


def _of(kind: Kind, name: str) -> str:
    return SQL[name].replace("{listings}", LISTINGS[kind])


def _read(name: str, ids: Sequence[int], record: type[D]) -> Script[tuple[list[D], list[Removal]]]:
    def documents_and_removals(rows: Rows) -> tuple[list[D], list[Removal]]:
        documents = [as_record(record, row) for row in rows if row["listed"]]
        return documents, [Removal(id=row["id"], revision=row["revision"]) for row in rows if not row["listed"]]

    yield from Query(SQL["looked_up"], {}, len)
    return (yield from Query(SQL[name], {"ids": list(ids)}, documents_and_removals))
