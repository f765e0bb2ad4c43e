"""How the embedded engine's builds are made, filled and dropped: two tables for each, named by its number."""

from __future__ import annotations

import struct
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, cast

import msgspec
import psycopg
from psycopg.rows import DictRow
from psycopg.types.json import Jsonb

from storage.errors import NotFound, StoreUnavailable
from storage.postgres.connection import Database, Query, column, load_statements
from storage.postgres.search import search_builds
from storage.records.search.search import Build, Facet, IndexDocument, Kind, Removal, Written, vector_numbers
from storage.records.search.tokens import stem
from storage.search.embedded import ENGINE, EVERY_ROW, RANKS, label_of, segments_of, vector_text
from storage.search.lexemes import document_lexemes, document_tsvector, kept_deletes

SQL = load_statements(__file__)
INDEXES = ("index_words", "index_labels", "index_there", "index_stems", "index_deletes")
BATCH = 500
# The numbers of these types in pg_type, the same in every installation.
OID_INT8, OID_TEXT = 20, 25
HALF_BYTES, GRAPH_BYTES = 2, 1200
"""Of a vector's number, and of a vector's place in the graph with m = 16, about."""
COPIED = ("int8", "int8", "bool", "text", "bytea", "bytea", "int4", "int8", "bytea", "bytea")
"""How the columns are sent by COPY: as bytes where those are made here, which takes a tenth of psycopg's time."""


def statement(name: str, build: Build) -> str:
    """A statement for the tables of a build."""
    vector = "halfvec" if build.dimensions is None else f"halfvec({build.dimensions})"
    return SQL[name].replace("{build}", str(int(build.id))).replace("{vector}", vector)


def vector_indexes(build: Build) -> list[str]:
    """The statements that make the indexes of a build's vectors; none for a build without vectors."""
    if build.dimensions is None:
        return []
    wheres = ["" if rows == EVERY_ROW else f"where {rows}" for rows in segments_of(build)]
    index = statement("index_vectors", build)
    return [
        index.replace("{number}", str(number)).replace("{of_segment}", where) for number, where in enumerate(wheres)
    ]


class EmbeddedWriter:
    """Search in Postgres for flows."""

    engine = ENGINE

    def __init__(self, database: Database, index_memory_mib: int) -> None:
        self._database, self._index_memory_mib = database, index_memory_mib
        self._known_words: dict[int, set[str]] = {}

    def create(self, build: Build) -> None:
        """As `SearchWriter.create`. Raises StoreUnavailable where pgvector is not installed."""
        try:
            self._alone("create extension if not exists vector")
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.UndefinedFile) as error:
            raise StoreUnavailable(
                "This Postgres has no pgvector, which search needs. Install it, or name an Elasticsearch in "
                "DARKROOM_SEARCH__ELASTICSEARCH_URL."
            ) from error
        self._alone(statement("create", build), statement("create_words", build))

    def write(self, build: Build, documents: Sequence[IndexDocument], removals: Sequence[Removal] = ()) -> Written:
        """As `SearchWriter.write`. A batch with a document that cannot be kept is written one by one."""
        rows = [row_of(document) for document in documents] + [removed_row(removal) for removal in removals]
        words = [{word for place in document.words.values() for word in place} for document in documents]
        stored = 0
        refused: dict[int, str] = {}
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            new_words = set[str]().union(*words[start : start + BATCH])
            try:
                stored += self._write(build, batch, new_words)
            except psycopg.DataError:
                # Removals come after the documents and have no words: they are filled up with empty sets.
                for row, its_words in zip(batch, [*words[start : start + BATCH], *[set[str]()] * BATCH], strict=False):
                    try:
                        stored += self._write(build, [row], its_words)
                    except psycopg.DataError as error:
                        refused[row["id"]] = str(error).splitlines()[0]
        return Written(stored=stored, superseded=len(rows) - stored - len(refused), refused=refused)

    def _write(self, build: Build, rows: Sequence[Mapping[str, Any]], words: set[str]) -> int:
        documents = {"documents": Jsonb(list(rows), msgspec.json.encode)}
        with _in_tables_of(build):
            self._add_words(build, words)
            return self._database.run(Query(statement("write", build), documents, len))

    def load(self, build: Build, documents: Sequence[IndexDocument]) -> Written:
        """As `SearchWriter.load`: by COPY, except what a drain has written before and what cannot be kept."""
        with _in_tables_of(build):
            ids = [document.id for document in documents]
            there = set(self._database.run(column(statement("written", build), {"ids": ids}, int)))
            new = [document for document in documents if document.id not in there] if there else documents
            self._add_words(build, {word for document in new for place in document.words.values() for word in place})
            try:
                rows = [copied_row(document) for document in new]
                self._database.run(Query(statement("copy", build), {}, len, copied=rows, copied_as=COPIED))
            # A drain may have written one of them since we looked; `write` settles it by the revision.
            except (psycopg.errors.UniqueViolation, psycopg.DataError, OverflowError, struct.error):
                return self.write(build, documents)
        written = self.write(build, [document for document in documents if document.id in there])
        return msgspec.structs.replace(written, stored=written.stored + len(new))

    def _add_words(self, build: Build, words: set[str]) -> None:
        """Keep new words before the documents that have them."""
        known = self._known_words.setdefault(build.id, set())
        unseen = {"words": sorted(words - known)}
        if unseen["words"]:
            new = self._database.run(column(statement("unknown_words", build), unseen, str))
            added = [{"word": word, "stem": stem(word), "deletes": kept_deletes(word)} for word in new]
            self._database.run(Query(statement("add_words", build), {"words": Jsonb(added, msgspec.json.encode)}, len))
            known.update(unseen["words"])

    def complete(self, build: Build) -> None:
        """As `SearchWriter.complete`: the indexes, made while writes go on."""
        with self._database.connect() as connection:
            # On a connection of its own, since an index is made concurrently outside a transaction, for as long as it
            # takes.
            connection.execute("set statement_timeout = 0")
            connection.execute("set lock_timeout = 0")
            memory = min(self._index_memory_mib, self._memory_for_vectors(connection, build))
            connection.execute(f"set maintenance_work_mem = '{memory}MB'".encode())
            # `if not exists` would take an index that was cut short for the finished one.
            for row in connection.execute(cast(Any, statement("invalid", build))).fetchall():
                connection.execute(cast(Any, f"drop index {row['name']}"))
            for name in INDEXES:
                connection.execute(cast(Any, statement(name, build)))
            for index in vector_indexes(build):
                connection.execute(cast(Any, index))
            connection.execute(cast(Any, statement("analyze", build)))

    def _memory_for_vectors(self, connection: psycopg.Connection[DictRow], build: Build) -> int:
        """MiB in which the graph of a segment fits; Postgres takes as much as it is configured to, at once."""
        [row] = connection.execute(cast(Any, statement("size", build))).fetchall()
        documents = int(row["documents"]) // build.vector_segments
        return 64 + documents * (HALF_BYTES * (build.dimensions or 0) + GRAPH_BYTES) // 2**20

    def refresh(self, build: Build) -> None:
        """What is committed is found at once."""

    def swap(self, build: Build) -> None:
        """As `SearchWriter.swap`: one row, read in every query's own snapshot."""
        self._database.run(search_builds.swap(build.id))

    def reading(self, kind: Kind) -> int | None:
        """As `SearchWriter.reading`."""
        build = self._database.run(search_builds.live(kind, ENGINE))
        return build.id if build else None

    def drop(self, build: Build) -> None:
        """As `SearchWriter.drop`."""
        self._known_words.pop(build.id, None)
        self._alone(statement("drop", build))

    def revisions(self, build: Build, *, after: int, limit: int) -> list[tuple[int, int]]:
        """As `SearchWriter.revisions`."""
        query = Query(
            statement("revisions", build),
            {"after": after, "limit": limit},
            lambda rows: [(int(row["id"]), int(row["revision"])) for row in rows],
        )
        return self._database.run(query)

    def existing(self) -> list[int]:
        """As `SearchWriter.existing`."""
        return self._database.run(column(SQL["existing"], {}, int))

    def drop_stray(self, number: int) -> None:
        """As `SearchWriter.drop_stray`."""
        self._alone(SQL["drop"].replace("{build}", str(int(number))))

    def close(self) -> None:
        """The database's connections are not this writer's."""

    def _alone(self, *statements: str) -> None:
        with self._database.connect() as connection:
            for text in statements:
                # psycopg's types take only a text that is written out in the code: hence the casts here.
                connection.execute(cast(Any, text))


@contextmanager
def _in_tables_of(build: Build) -> Generator[None]:
    try:
        yield
    except psycopg.errors.UndefinedTable as error:
        raise NotFound(f"Search build {build.id} has no tables (any more).") from error


def row_of(document: IndexDocument) -> dict[str, Any]:
    """A document by the names of a build's columns."""
    labels = [label_of(facet, value) for facet, values in document.values.items() for value in values]
    return {
        "id": document.id,
        "revision": document.revision,
        "removed": False,
        "name": document.name,
        "words": document_lexemes(document),
        "labels": labels,
        "levels": document.levels,
        "published_at": document.published_at,
        "ranks": [document.ranks.get(rank, 0) for rank in RANKS],
        "vector": vector_text(document.vector) if document.vector else None,
    }


def copied_row(document: IndexDocument) -> tuple[Any, ...]:
    """A document in the order of a build's columns, as COPY takes it in binary."""
    labels = [_label(facet, value) for facet, values in document.values.items() for value in values]
    return (
        document.id,
        document.revision,
        False,
        document.name,
        document_tsvector(document),
        _array_head(OID_TEXT, len(labels)) + b"".join(labels),
        document.levels,
        document.published_at,
        _RANKS_HEAD + _RANKS.pack(*[part for rank in RANKS for part in (8, document.ranks.get(rank, 0))]),
        _halves(document.vector) if document.vector else None,
    )


def _array_head(kind: int, count: int) -> bytes:
    """The head of a Postgres array in binary; each value follows behind its length.

    Source: array_recv: dimensions, nulls, type, length, first index.
    """
    return struct.pack(">iiIii", 1, 0, kind, count, 1) if count else struct.pack(">iiI", 0, 0, kind)


_RANKS_HEAD = _array_head(OID_INT8, len(RANKS))
_RANKS = struct.Struct(">" + "iq" * len(RANKS))


@lru_cache(maxsize=65_536)
def _label(facet: Facet, value: str) -> bytes:
    """A label as a value of an array in binary; many documents share it."""
    label = label_of(facet, value).encode()
    return len(label).to_bytes(4, "big") + label


def _halves(vector: bytes) -> bytes:
    """A vector in binary. Source: halfvec_recv of pgvector: the length, nothing, the halves."""
    numbers = vector_numbers(vector)
    return struct.pack(f">hh{len(numbers)}e", len(numbers), 0, *numbers)


def removed_row(removal: Removal) -> dict[str, Any]:
    """What stays of a removed document."""
    return {
        "id": removal.id,
        "revision": removal.revision,
        "removed": True,
        "name": "",
        "words": "",
        "labels": [],
        "levels": 0,
        "published_at": 0,
        "ranks": [0] * len(RANKS),
        "vector": None,
    }
