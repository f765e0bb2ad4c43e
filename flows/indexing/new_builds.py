"""How a build begins, and the first one of each kind."""

from __future__ import annotations

import logging

from storage.errors import EncoderUnavailable
from storage.postgres.search import search_builds, search_queue, search_sources
from storage.records.search.search import ENCODED, Build, Kind
from storage.stores import Stores

log = logging.getLogger("darkroom.search")

SEGMENT = 100_000
"""Vectors of one graph, about: twice as many graphs take twice the time, a graph of twice the size takes more."""


def begin(stores: Stores, kind: Kind) -> Build:
    """An empty build that drains write to from now on. It holds vectors if its kind has any and there is an encoder."""
    encoder, dimensions, segments = None, None, 1
    if kind in ENCODED:
        try:
            encoder, dimensions = stores.encoder.name, stores.encoder.dimensions
            segments = max(1, len(stores.database.run(search_sources.shards(kind, SEGMENT))))
        except EncoderUnavailable as error:
            log.warning("building without vectors: %s", error)
    # Row, index, then open for writes: a death in between leaves a row in PREPARING, which the next rebuild clears, and
    # a drain never meets a build whose index is not there yet.
    build = stores.database.run(search_builds.insert(kind, stores.search.engine, encoder, dimensions, segments))
    stores.search.create(build)
    return stores.database.run(search_builds.open_for_writes(build.id))


def ensure_live_builds(stores: Stores) -> list[Build]:
    """Make an index for each kind whose searches have none to read; returns those. What is listed waits to be
    written."""
    made: list[Build] = []
    for kind in Kind:
        if stores.search.reading(kind) is not None:
            continue
        build = begin(stores, kind)
        stores.search.complete(build)
        stores.search.swap(build)
        # After the swap: searches find what is there already instead of failing, and the next drain fills in the rest.
        stores.database.run(search_queue.add_every(kind))
        made.append(build)
    return made
