"""Search by meaning, and by both: near enough to looking at every vector, filters included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import msgspec
import numpy as np
import pytest

from storage.errors import EncoderUnavailable
from storage.records.search.relevance import fuse
from storage.records.search.search import Facet, Filters, IndexDocument, Kind, SearchMode, SearchQuery
from storage.records.search.search_documents import ModelDocument
from storage.search import elasticsearch, embedded
from storage.search.documents import models
from storage.search.encoder import Encoder
from storage.search.gateway import QueryVector
from storage.settings import SearchSettings
from tests.contracts import corpus
from tests.contracts.conftest import Bench

COUNT, DIMENSIONS, CLUSTERS = 4000, 384, 40
WRITTEN = corpus.written()
KEYS = {model.id: key for key, model in WRITTEN.items()}


def clustered(count: int, seed: int) -> np.ndarray:
    """(count, DIMENSIONS) float32 rows of length 1 around CLUSTERS centres."""
    numbers = np.random.default_rng(seed)
    centres = numbers.normal(size=(CLUSTERS, DIMENSIONS))
    rows = centres[numbers.integers(CLUSTERS, size=count)] + numbers.normal(size=(count, DIMENSIONS)) * 0.7
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("<f4")


# Elasticsearch keeps graphs as it pleases, whatever is asked for.
IN_GRAPHS = pytest.mark.parametrize(
    ("bench", "segments"), [("embedded", 1), ("embedded", 7), ("elasticsearch", 1)], indirect=True, scope="module"
)


@pytest.fixture(scope="module")
def segments(request: pytest.FixtureRequest) -> int:
    """In how many graphs the embedded engine keeps the vectors."""
    return request.param


@pytest.fixture(scope="module")
def vectors(bench: Bench, segments: int) -> np.ndarray:
    """The vectors of a live build of images: one document in 50 is tagged rare, one in 5 common."""
    rows = clustered(COUNT, seed=3)
    documents = [
        msgspec.structs.replace(
            models.build(
                ModelDocument(
                    id=number + 1,
                    revision=1,
                    name=f"picture {number}",
                    creator="ada",
                    type="LORA",
                    tags=(*(("rare",) if number % 50 == 0 else ()), *(("common",) if number % 5 == 0 else ())),
                    levels=1 << number % 3,
                    published_at=corpus.START + timedelta(minutes=number),
                )
            ),
            vector=row.tobytes(),
        )
        for number, row in enumerate(rows)
    ]
    bench.filled(documents, Kind.IMAGE, encoder="seeded", dimensions=DIMENSIONS, vector_segments=segments)
    return rows


@IN_GRAPHS
@pytest.mark.parametrize(
    ("filters", "allowed"),
    [
        (Filters(), lambda number: True),
        (Filters(values={Facet.TAG: ("common",)}), lambda number: number % 5 == 0),
        (Filters(values={Facet.TAG: ("rare",)}), lambda number: number % 50 == 0),
        (Filters(values={Facet.TAG: ("rare",)}, levels=2), lambda number: number % 50 == 0 and number % 3 == 1),
    ],
    ids=["everything", "a fifth", "a fiftieth", "a 150th"],
)
def test_nineteen_of_the_nearest_twenty_are_found(
    bench: Bench,
    vectors: np.ndarray,
    segments: int,
    monkeypatch: pytest.MonkeyPatch,
    filters: Filters,
    allowed: Callable[[int], bool],
) -> None:
    if segments > 1:  # few are looked for in the graphs too
        monkeypatch.setattr(embedded, "FEW", 0)
    assert recall(bench, vectors, filters, np.array([number for number in range(COUNT) if allowed(number)])) >= 0.95


def recall(bench: Bench, vectors: np.ndarray, filters: Filters, passing: np.ndarray) -> float:
    """How many of the nearest twenty are found, of the rows that pass the filters."""
    shares: list[float] = []
    for query in clustered(40, seed=5):
        nearest = passing[np.argsort(-(vectors[passing] @ query))[:20]] + 1
        asked = QueryVector("seeded", query.tobytes())
        hits = bench.run(bench.reader.nearest(Kind.IMAGE, filters, asked, 20))
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
        assert {hit.id - 1 for hit in hits} <= set(passing.tolist())
        shares.append(len(set(nearest.tolist()) & {hit.id for hit in hits}) / 20)
    return float(np.mean(shares))


@IN_GRAPHS
def test_where_few_pass_a_filter_each_is_compared(
    bench: Bench, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elasticsearch, "CANDIDATES", 1)  # the graph alone misses some
    common = Filters(values={Facet.TAG: ("common",)})
    assert recall(bench, vectors, common, np.arange(0, COUNT, 5)) >= 0.999


def test_elasticsearch_keeps_all_that_pass_or_a_thousand() -> None:
    filters = Filters(values={Facet.TAG: ("common",)})

    def kept(passing: int | None, limit: int) -> int:
        return elasticsearch.nearest_request("vector", filters, b"", limit, passing)["knn"]["num_candidates"]

    assert [kept(passing, 20) for passing in (None, 0, 7_000, 10_000, 10_001)] == [200, 40, 7_000, 10_000, 1_000]
    assert [kept(passing, 600) for passing in (None, 0, 10_001)] == [1_200, 1_200, 1_200]


@IN_GRAPHS
def test_a_score_is_the_cosine(bench: Bench, vectors: np.ndarray) -> None:
    hits = bench.run(bench.reader.nearest(Kind.IMAGE, Filters(), QueryVector("seeded", vectors[7].tobytes()), 3))
    assert hits[0].id == 8
    expected = [float(vectors[hit.id - 1] @ vectors[7]) for hit in hits]
    np.testing.assert_allclose([hit.score for hit in hits], expected, atol=2e-3)


@IN_GRAPHS
def test_vectors_of_another_encoder_are_not_compared(bench: Bench, vectors: np.ndarray) -> None:
    with pytest.raises(EncoderUnavailable, match="darkroom rebuild images"):
        bench.run(bench.reader.nearest(Kind.IMAGE, Filters(), QueryVector("other", vectors[0].tobytes()), 20))


@pytest.fixture(scope="module")
def encoded(bench: Bench) -> Bench:
    """The hand-written models with vectors of the real encoder."""
    rows = bench.encoder.encode([models.encoded_text(model) for model in WRITTEN.values()])
    documents: list[IndexDocument] = [
        models.build(model, row.tobytes()) for model, row in zip(WRITTEN.values(), rows, strict=True)
    ]
    bench.filled(documents, encoder=bench.encoder.name, dimensions=bench.encoder.dimensions)
    return bench


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("kitten", "cat"),
        ("mythical fire breathing reptile", "dragon"),
        ("aquarelle artwork", "watercolor"),
        ("old automobile", "car"),
        ("fairy tales for children", "stories"),
    ],
)
def test_meaning_is_found_without_the_word(encoded: Bench, text: str, near: str) -> None:
    response = encoded.find(SearchQuery(text=text, mode=SearchMode.SEMANTIC, limit=5))
    assert near in [KEYS[hit.id] for hit in response.hits]
    assert response.total == len(WRITTEN)


def test_pages_of_a_semantic_search_are_one_list(encoded: Bench) -> None:
    whole = encoded.ids("a city at night", mode=SearchMode.SEMANTIC)
    paged: list[int] = []
    for at in range(0, len(WRITTEN), 10):
        page = SearchQuery(text="a city at night", mode=SearchMode.SEMANTIC, limit=10, offset=at)
        paged.extend(hit.id for hit in encoded.find(page).hits)
    assert len(whole) == len(WRITTEN)
    assert paged == whole


def test_a_fused_search_is_the_fusion_of_both(encoded: Bench) -> None:
    filters = Filters(values={Facet.TYPE: ("LORA",)})
    fields = {"filters": filters, "facets": (Facet.TYPE, Facet.BASE_MODEL)}
    response = encoded.find(SearchQuery(text="night city", mode=SearchMode.FUSED, limit=30, offset=5, **fields))
    text = encoded.ids("night city", filters=filters)
    semantic = encoded.ids("night city", mode=SearchMode.SEMANTIC, filters=filters)
    assert list(response.hits) == fuse(text, semantic)[5:35]
    assert response.degraded == ()
    everything = encoded.find(SearchQuery(limit=0, **fields))
    assert (response.total, response.facets) == (everything.total, everything.facets)
    assert response.total == sum(model.type == "LORA" for model in WRITTEN.values())


def test_without_an_encoder_text_is_searched_and_meaning_is_refused(encoded: Bench) -> None:
    blind = replace(encoded, encoder=Encoder(SearchSettings(encoder_folder="off")))
    with pytest.raises(EncoderUnavailable, match="off"):
        blind.find(SearchQuery(text="cat", mode=SearchMode.SEMANTIC))
    fused = blind.find(SearchQuery(text="cat", mode=SearchMode.FUSED))
    assert fused.degraded == ("semantic",)
    assert fused.hits == blind.find(SearchQuery(text="cat")).hits
    assert fused.hits
