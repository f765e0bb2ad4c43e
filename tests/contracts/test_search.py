"""What search promises, on every engine: the golden queries, and equality with a slow search that is plainly right."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from storage.errors import InvalidRequest
from storage.records.search.search import FACETS, SORTS, Facet, Filters, Kind, Rank, SearchMode, SearchQuery, Sort
from storage.search.documents import creators, images, models
from tests.contracts import corpus, oracle
from tests.contracts.conftest import Bench
from tests.contracts.golden import Golden, golden

MODELS, IMAGES, CREATORS = corpus.written(), corpus.written_images(), corpus.written_creators()
WRITTEN = {Kind.MODEL: MODELS, Kind.IMAGE: IMAGES, Kind.CREATOR: CREATORS}
KEYS = {kind: {document.id: key for key, document in written.items()} for kind, written in WRITTEN.items()}
DOCUMENTS = {
    Kind.MODEL: [models.build(model) for model in (*MODELS.values(), *corpus.invented(400, seed=7))],
    Kind.IMAGE: [images.build(image) for image in (*IMAGES.values(), *corpus.invented_images(200, seed=8))],
    Kind.CREATOR: [creators.build(one) for one in (*CREATORS.values(), *corpus.invented_creators(100, seed=9))],
}


@pytest.fixture(scope="module")
def catalogue(bench: Bench) -> Bench:
    """The engine with the seeded corpora in it, each in an index of its own."""
    for kind, documents in DOCUMENTS.items():
        bench.filled(documents, kind)
    return bench


@pytest.mark.parametrize(
    "case", [case for kind in Kind for case in golden(kind)], ids=lambda case: f"{case.kind} {case.query}"
)
def test_golden(catalogue: Bench, case: Golden) -> None:
    found = [KEYS[case.kind].get(identity, "invented") for identity in catalogue.ids(case.query, case.kind)]
    assert set(case.found) <= set(found)
    assert not set(case.never) & set(found)
    assert tuple(found[: len(case.first)]) == case.first
    assert not case.nothing_else or set(found) == set(case.found)


@pytest.mark.parametrize(("kind", "enough"), [(Kind.MODEL, 150), (Kind.IMAGE, 12), (Kind.CREATOR, 12)])
def test_there_are_enough_golden_queries_and_each_key_is_of_the_corpus(kind: Kind, enough: int) -> None:
    cases = golden(kind)
    assert len({case.query for case in cases}) >= enough
    assert {key for case in cases for key in (*case.found, *case.never, *case.first)} <= set(WRITTEN[kind])


def some_queries(kind: Kind, count: int, seed: int) -> Iterator[SearchQuery]:
    """Queries that find something: words of documents, cut, misspelt, doubled; filters by chance."""
    chance = random.Random(seed)
    for _ in range(count):
        document = chance.choice(DOCUMENTS[kind])
        known = [word for words in document.words.values() for word in words]
        words = [misspelt(word, chance) for word in chance.sample(known, min(len(known), chance.randint(0, 3)))]
        values: dict[Facet, tuple[str, ...]] = {
            facet: (chance.choice(document.values[facet] or ("none",)),)
            for facet in FACETS[kind]
            if chance.random() < 0.2
        }
        wide = kind is Kind.IMAGE and chance.random() < 0.3
        if chance.random() < 0.3:
            values[Facet.TYPE] = ("LORA", "Checkpoint")
        around = document.published_at
        yield SearchQuery(
            text=" ".join(words),
            filters=Filters(
                values=values,
                at_least={Rank.WIDTH: 768, Rank.HEIGHT: 600} if wide else {},
                levels=chance.choice((None, None, 1, 3, 28)),
                published_from=chance.choice((None, None, around)),
                published_before=chance.choice((None, None, around + 1, around)),
            ),
            facets=tuple(facet for facet in FACETS[kind] if chance.random() < 0.7),
            sort=chance.choice((Sort.RELEVANCE, *SORTS[kind])),
            limit=chance.choice((1, 10, 100, 500)),
            offset=chance.choice((0, 0, 3)),
        )


def misspelt(word: str, chance: random.Random) -> str:
    """The word, its beginning, or the word with an error or two."""
    if chance.random() < 0.2:
        return word[: chance.randint(1, len(word))]
    for _ in range(chance.choice((0, 0, 1, 2))):
        at = chance.randrange(len(word))
        word = chance.choice(
            (
                word[:at] + word[at + 1 :],
                word[:at] + chance.choice("aeosz") + word[at:],
                word[:at] + chance.choice("aeosz") + word[at + 1 :],
                word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :],
            )
        )
        word = word or "a"
    return word


ASKED = [
    pytest.param(kind, query, marks=() if number < small else pytest.mark.soak)
    # Each filter, facet, order and misspelling comes several times in the small size.
    for kind, small, count in ((Kind.MODEL, 75, 150), (Kind.IMAGE, 30, 50), (Kind.CREATOR, 15, 20))
    for number, query in enumerate(some_queries(kind, count, seed=11))
]


@pytest.mark.parametrize(("kind", "query"), ASKED, ids=str)
def test_every_result_is_that_of_the_oracle(catalogue: Bench, kind: Kind, query: SearchQuery) -> None:
    response = catalogue.find(query, kind)
    documents = DOCUMENTS[kind]
    expected = oracle.matches(documents, query, kind)
    page = expected[query.offset : query.offset + query.limit]
    assert [hit.id for hit in response.hits] == [hit.id for hit in page]
    assert response.total == len(expected)
    assert dict(response.facets) == {facet: oracle.facet(documents, query, facet, kind) for facet in query.facets}


@pytest.mark.parametrize(
    ("kind", "query", "field"),
    [
        (Kind.CREATOR, SearchQuery(text="ada", mode=SearchMode.SEMANTIC), "mode"),
        (Kind.CREATOR, SearchQuery(sort=Sort.DOWNLOADED), "sort"),
        (Kind.IMAGE, SearchQuery(sort=Sort.PRODUCTIVE), "sort"),
        (Kind.MODEL, SearchQuery(facets=(Facet.SHAPE,)), "facets"),
        (Kind.CREATOR, SearchQuery(facets=(Facet.TAG,)), "facets"),
    ],
)
def test_what_a_kind_does_not_have_is_refused(catalogue: Bench, kind: Kind, query: SearchQuery, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        catalogue.find(query, kind)
    assert list(refused.value.fields) == [field]
