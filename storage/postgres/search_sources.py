"""Rows as search reads them: what is listed becomes documents, what is not becomes removals, both with a revision."""

from __future__ import annotations

from collections.abc import Sequence

from storage.postgres.connection import Query, Rows, as_record, column, load_statements, many
from storage.records.search import Removal
from storage.records.search_documents import ModelDocument

SQL = load_statements(__file__)


def models(ids: Sequence[int]) -> Query[tuple[list[ModelDocument], list[Removal]]]:
    """Models of one moment."""

    def read(rows: Rows) -> tuple[list[ModelDocument], list[Removal]]:
        documents = [as_record(ModelDocument, row) for row in rows if row["listed"]]
        return documents, [Removal(id=row["id"], revision=row["revision"]) for row in rows if not row["listed"]]

    return Query(SQL["models"], {"ids": list(ids)}, read)


def model_shards(size: int) -> Query[list[int]]:
    """The first ids of shards of `size` listed models, in order."""
    return column(SQL["model_shards"], {"size": size}, int)


def listed_models(first: int, end: int | None) -> Query[list[int]]:
    """The ids of listed models from `first` to before `end`; None: to the last."""
    return column(SQL["listed_models"], {"first": first, "end": end}, int)


def model_revisions(after: int, limit: int) -> Query[list[tuple[int, int]]]:
    """Ids and revisions of listed models above `after`, in order."""
    parameters = {"after": after, "limit": limit}
    return Query(SQL["model_revisions"], parameters, lambda rows: [(row["id"], row["revision"]) for row in rows])


def unlisted_models(ids: Sequence[int]) -> Query[list[Removal]]:
    """Those of `ids` that are not listed."""
    return many(SQL["unlisted_models"], {"ids": list(ids)}, Removal)
