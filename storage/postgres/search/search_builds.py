"""Builds of search indexes: which are written, which one is read."""

from __future__ import annotations

from storage.postgres.connection import Query, Script, column, load_statements, many, maybe, one
from storage.records.search.search import Build, Kind

SQL = load_statements(__file__)


def insert(
    kind: Kind, engine: str, encoder: str | None, dimensions: int | None, vector_segments: int = 1
) -> Query[Build]:
    """A new build, whose index is to be made."""
    parameters = {
        "kind": kind,
        "engine": engine,
        "encoder": encoder,
        "dimensions": dimensions,
        "vector_segments": vector_segments,
    }
    return one(SQL["insert"], parameters, Build, "the new build")


def open_for_writes(build_id: int) -> Query[Build]:
    """The index of a new build is there, so every drain writes to it from now on."""
    return one(SQL["open"], {"id": build_id}, Build, f"No search build {build_id} that is being prepared.")


def live(kind: Kind, engine: str) -> Query[Build | None]:
    """The build that is read: the alias, as a row in the transaction's own snapshot."""
    return maybe(SQL["live"], {"kind": kind, "engine": engine}, Build)


def written(kind: Kind, engine: str) -> Query[list[Build]]:
    """The builds that every write goes to, oldest first."""
    return many(SQL["written"], {"kind": kind, "engine": engine}, Build)


def of_engine(engine: str) -> Query[list[Build]]:
    """Every build of an engine, oldest first."""
    return many(SQL["of_engine"], {"engine": engine}, Build)


def retired(engine: str, seconds: float) -> Query[list[Build]]:
    """The builds that nobody has read for `seconds`."""
    return many(SQL["retired"], {"engine": engine, "seconds": seconds}, Build)


def swap(build_id: int) -> Script[Build]:
    """From now on `build_id` is read; the one before is retired. Raises NotFound for a build that is gone."""
    # Before the other goes live: the unique index allows one live build of a kind, at every moment.
    yield from column(SQL["retire"], {"id": build_id}, int)
    return (yield from one(SQL["go_live"], {"id": build_id}, Build, f"No search build {build_id}."))


def retire_live(kind: Kind, engine: str) -> Query[list[int]]:
    """Nothing is read any more: searches of the kind respond that there is no index."""
    return column(SQL["retire_live"], {"kind": kind, "engine": engine}, int)


def forget(build_id: int) -> Query[list[int]]:
    """Nothing is written to a build any more. A live one stays."""
    return column(SQL["forget"], {"id": build_id}, int)
