"""Rows become documents: read as they are at this moment, with their vectors, and written to every build."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec
import psycopg

from storage.errors import EncoderUnavailable, NotFound
from storage.postgres.connection import Script
from storage.postgres.search import search_builds, search_queue, search_sources, search_vectors
from storage.records.search.search import Build, BuildState, IndexDocument, Kind, Removal
from storage.search.documents import creators, images, models
from storage.stores import Stores

log = logging.getLogger("darkroom.indexing")

D = TypeVar("D")


@dataclass(frozen=True)
class Source(Generic[D]):
    """Where a kind's documents come from and how they are made.

    read: rows of some ids, as documents and removals. text: what is encoded; None for a kind that is not. build: with a
    vector, for the engine.
    """

    read: Callable[[Sequence[int]], Script[tuple[list[D], list[Removal]]]]
    text: Callable[[D], str] | None
    build: Callable[[D, bytes], IndexDocument]


SOURCES: Mapping[Kind, Source[Any]] = {
    Kind.MODEL: Source(search_sources.models, models.encoded_text, models.build),
    Kind.IMAGE: Source(search_sources.images, images.encoded_text, images.build),
    Kind.CREATOR: Source(search_sources.creators, None, creators.build),
}
"""What is searched."""


@dataclass(frozen=True)
class ReadRows:
    """Documents and removals as their rows were when they were read; `encoder` made the vectors, None: no vectors."""

    documents: Sequence[IndexDocument]
    removals: Sequence[Removal]
    encoder: str | None

    def documents_for(self, build: Build) -> Sequence[IndexDocument]:
        """The documents as a build takes them: without vectors that are not its encoder's."""
        if self.encoder is None or build.encoder == self.encoder:
            return self.documents
        return [msgspec.structs.replace(document, vector=b"") for document in self.documents]


def read_rows(stores: Stores, kind: Kind, ids: Sequence[int]) -> ReadRows:
    """These rows as they are now, with vectors where there is an encoder."""
    source = SOURCES[kind]
    rows, removals = stores.database.run(source.read(ids))
    encoder, vectors = None, [b""] * len(rows)
    if source.text is not None:
        encoder, vectors = vectors_of(stores, [source.text(row) for row in rows])
    documents = [source.build(row, vector) for row, vector in zip(rows, vectors, strict=True)]
    return ReadRows(documents, removals, encoder)


def vectors_of(stores: Stores, texts: Sequence[str]) -> tuple[str | None, list[bytes]]:
    """The encoder's name and a vector for each text; those that Postgres has are not made again.

    Without an encoder the name is None and the vectors are empty.
    """
    try:
        encoder = stores.encoder.name
    except EncoderUnavailable:
        return None, [b""] * len(texts)
    hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
    # By the hash of the text, not by the row: most edits of a model leave its encoded text as it was, and equal prompts
    # of many images are one vector.
    known = stores.database.run(search_vectors.known(encoder, sorted(set(hashes))))
    missing = {digest: text for digest, text in zip(hashes, texts, strict=True) if digest not in known}
    if missing:
        made = stores.encoder.encode(list(missing.values()))
        new = {digest: row.tobytes() for digest, row in zip(missing, made, strict=True)}
        stores.database.run(search_vectors.add(encoder, new))
        known |= new
    return encoder, [known[digest] for digest in hashes]


def write_everywhere(stores: Stores, kind: Kind, ids: Sequence[int]) -> None:
    """Write rows as they are now to every build of their kind; a row that cannot be is put on the list of dead letters.

    The builds are listed after the rows were read: one that began in between reads these rows itself. The live one
    comes last, so that a build that takes its place is never behind what readers have seen.
    """

    def write(some: Sequence[int]) -> None:
        rows = read_rows(stores, kind, some)
        builds = stores.database.run(search_builds.written(kind, stores.search.engine))
        refused: dict[int, str] = {}
        for build in sorted(builds, key=lambda build: build.state is BuildState.LIVE):
            refused |= _write(stores, build, rows)
        _note_refused(stores, kind, rows, refused)

    one_by_one_on_failure(stores, kind, ids, write)


def write_to(stores: Stores, build: Build, ids: Sequence[int]) -> None:
    """Write rows as they are now to one build that is filled; one that cannot be is put on the list of dead letters."""

    def write(some: Sequence[int]) -> None:
        rows = read_rows(stores, build.kind, some)
        refused = dict(stores.search.load(build, rows.documents_for(build)).refused)
        if rows.removals:
            refused |= stores.search.write(build, [], rows.removals).refused
        _bury(stores, build.kind, rows, refused)

    one_by_one_on_failure(stores, build.kind, ids, write)


def one_by_one_on_failure(
    stores: Stores, kind: Kind, ids: Sequence[int], write: Callable[[Sequence[int]], None]
) -> None:
    """Write ids together, or one by one if a row among them cannot be read; that one does not hold up the others."""
    try:
        write(ids)
    # Only what a row's own content can cause. A store that is unavailable has to reach the retries of the caller.
    except (psycopg.DataError, msgspec.ValidationError, ValueError, OverflowError) as error:
        if len(ids) == 1:
            log.exception("%s %d cannot be read", kind, ids[0])
            stores.database.run(search_queue.bury(kind, ids[0], 0, f"{type(error).__name__}: {error}"))
            return
        for identity in ids:
            one_by_one_on_failure(stores, kind, [identity], write)


def _write(stores: Stores, build: Build, rows: ReadRows) -> Mapping[int, str]:
    try:
        return stores.search.write(build, rows.documents_for(build), rows.removals).refused
    except NotFound:
        # Dropped since it was listed; a build that is listed still and has no index is an error.
        listed = stores.database.run(search_builds.written(build.kind, stores.search.engine))
        if any(other.id == build.id for other in listed):
            raise
        return {}


def _note_refused(stores: Stores, kind: Kind, rows: ReadRows, refused: Mapping[int, str]) -> None:
    written = [change.id for change in (*rows.documents, *rows.removals) if change.id not in refused]
    # A row that was fixed leaves the list of dead letters by being written, without anybody's help.
    stores.database.run(search_queue.revive(kind, written))
    _bury(stores, kind, rows, refused)


def _bury(stores: Stores, kind: Kind, rows: ReadRows, refused: Mapping[int, str]) -> None:
    revisions = {document.id: document.revision for document in rows.documents}
    for identity, error in refused.items():
        log.error("%s %d cannot be indexed: %s", kind, identity, error)
        stores.database.run(search_queue.bury(kind, identity, revisions.get(identity, 0), error))
