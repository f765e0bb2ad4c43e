"""Queries of the search benchmark: how long each kind takes, and how many of the nearest a semantic one finds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from statistics import median, quantiles

import numpy as np

from benchmarks.search_catalogue import WORDS
from storage.postgres.connection import AsyncDatabase
from storage.records.search.search import FACETS, Facet, Filters, IndexDocument, Kind, SearchMode, SearchQuery
from storage.search.elasticsearch import ElasticsearchReader
from storage.search.embedded import EmbeddedReader
from storage.search.encoder import Encoder
from storage.search.gateway import QueryVector, Search, SearchReader
from storage.settings import Settings
from storage.thread_pools import ThreadPool

QUERIES, RECALL_QUERIES = 200, 50
NEAREST = 20
RECALL_GOAL, SECONDS_GOAL = 0.95, 0.1
FILTERS: Mapping[str, Filters] = {
    "all": Filters(),
    "2-percent": Filters(values={Facet.TAG: ("tag7", "tag8")}),  # each of 300 tags is on one model in 100
}


class Recall:
    """The nearest documents of some vectors by looking at every one, for each filter."""

    def __init__(self, documents: Sequence[IndexDocument], asked: np.ndarray) -> None:
        self.asked = asked
        self.nearest = {name: self._of(documents, filters) for name, filters in FILTERS.items()}

    def _of(self, documents: Sequence[IndexDocument], filters: Filters) -> list[set[int]]:
        tags = set(filters.values.get(Facet.TAG, ()))
        passing = [one for one in documents if not tags or tags.intersection(one.values[Facet.TAG])]
        scores = np.concatenate(
            [
                self.asked @ np.frombuffer(b"".join(one.vector for one in page), "<f4").reshape(len(page), -1).T
                for page in (passing[at : at + 10_000] for at in range(0, len(passing), 10_000))
            ],
            axis=1,
        )
        best = np.argpartition(-scores, NEAREST, axis=1)[:, :NEAREST]
        return [{passing[place].id for place in places} for places in best.tolist()]


def queries() -> dict[str, list[SearchQuery]]:
    """Queries of each kind, by its name."""
    chance = np.random.default_rng(3)

    def words(count: int) -> list[str]:
        return [" ".join(chance.choice(WORDS, count, replace=False)) for _ in range(QUERIES)]

    lora = Filters(values={Facet.TYPE: ("LORA",)})
    return {
        "two words": [SearchQuery(text=text) for text in words(2)],
        "filter and facets": [SearchQuery(text=text, filters=lora, facets=FACETS[Kind.MODEL]) for text in words(1)],
        "prefix": [SearchQuery(text=text[:4]) for text in words(1)],
        "typing error": [SearchQuery(text=text[0] + text[2] + text[1] + text[3:]) for text in words(1)],
        "semantic": [SearchQuery(text=text, mode=SearchMode.SEMANTIC) for text in words(3)],
        "fused": [SearchQuery(text=text, mode=SearchMode.FUSED) for text in words(2)],
    }


async def time_kind(search: Search, name: str, asked: list[SearchQuery]) -> float:
    """Print the median and the 99th percentile of some queries, one after the other; returns the median in seconds."""
    await search.find(Kind.MODEL, asked[0])
    seconds: list[float] = []
    for query in asked:
        began = time.perf_counter()
        await search.find(Kind.MODEL, query)
        seconds.append(time.perf_counter() - began)
    worst = quantiles(seconds, n=100)[98]
    print(f"  {name:<20} p50 {median(seconds) * 1000:8.1f} ms   p99 {worst * 1000:8.1f} ms", flush=True)
    return median(seconds)


async def print_recall(reader: SearchReader, name: str, encoder: str, recall: Recall) -> None:
    """Print how many of the nearest twenty are found, and how long that takes."""
    for filtered, filters in FILTERS.items():
        shares: list[float] = []
        began = time.perf_counter()
        for vector, nearest in zip(recall.asked, recall.nearest[filtered], strict=True):
            hits = await reader.nearest(Kind.MODEL, filters, QueryVector(encoder, vector.tobytes()), NEAREST)
            shares.append(len(nearest & {hit.id for hit in hits}) / NEAREST)
        each = (time.perf_counter() - began) / len(shares)
        found = float(np.mean(shares))
        print(f"  nearest, {filtered:<11} recall@{NEAREST} {found:.3f}   {each * 1000:.1f} ms each")
        print(
            f"figure {name}-recall-{filtered} {found:.3f} {RECALL_GOAL} {found / RECALL_GOAL:.2f} goal >=1", flush=True
        )


def time_queries(settings: Settings, name: str, encoder: str, recall: Recall) -> None:
    """Print the figures of each kind of query, and of what semantic ones find."""

    async def ask() -> None:
        database = AsyncDatabase(settings.postgres)
        await database.open()
        elastic = bool(settings.search.elasticsearch_url.get_secret_value())
        reader = ElasticsearchReader(settings.search) if elastic else EmbeddedReader(database)
        try:
            search = Search(reader, Encoder(settings.search), ThreadPool("encoder", 2, wait_seconds=5.0))
            medians = {kind: await time_kind(search, kind, asked) for kind, asked in queries().items()}
            for kind, seconds in medians.items():
                figure = f"{name}-{kind.replace(' ', '-')}-p50-seconds"
                print(f"figure {figure} {seconds:.4f} {SECONDS_GOAL} {seconds / SECONDS_GOAL:.2f} goal <=1")
            await print_recall(reader, name, encoder, recall)
        finally:
            await reader.close()
            await database.close()

    asyncio.run(ask())
