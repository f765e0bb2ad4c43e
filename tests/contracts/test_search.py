"""What search promises, on every engine: the golden queries, and equality with a slow search that is plainly right."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from storage.records.search import Facet, Filters, SearchQuery, Sort
from storage.search.documents import models
from tests.contracts import corpus, oracle
from tests.contracts.conftest import Bench
from tests.contracts.golden import Golden, golden

WRITTEN = corpus.written()
KEYS = {model.id: key for key, model in WRITTEN.items()}
DOCUMENTS = [models.build(model) for model in (*WRITTEN.values(), *corpus.invented(400, seed=7))]


@pytest.fixture(scope="module")
def catalogue(bench: Bench) -> Bench:
    """The engine with the seeded corpus in it."""
    bench.filled(DOCUMENTS)
    return bench


@pytest.mark.parametrize("case", golden(), ids=lambda case: case.query)
def test_golden(catalogue: Bench, case: Golden) -> None:
    found = [KEYS.get(identity, "invented") for identity in catalogue.ids(case.query)]
    assert set(case.found) <= set(found)
    assert not set(case.never) & set(found)
    assert tuple(found[: len(case.first)]) == case.first
    assert not case.nothing_else or set(found) == set(case.found)


def test_there_are_enough_golden_queries_and_each_key_is_a_model() -> None:
    cases = golden()
    assert len({case.query for case in cases}) >= 150
    assert {key for case in cases for key in (*case.found, *case.never, *case.first)} <= set(WRITTEN)


def some_queries(count: int, seed: int) -> Iterator[SearchQuery]:
    """Queries that find something: words of documents, cut, misspelt, doubled; filters by chance."""
    chance = random.Random(seed)
    for _ in range(count):
        document = chance.choice(DOCUMENTS)
        known = [word for words in document.words.values() for word in words]
        words = [misspelt(word, chance) for word in chance.sample(known, min(len(known), chance.randint(0, 3)))]
        values = {
            facet: (chance.choice(document.values[facet] or ("none",)),) for facet in Facet if chance.random() < 0.2
        }
        if chance.random() < 0.3:
            values[Facet.TYPE] = ("LORA", "Checkpoint")
        around = document.published_at
        yield SearchQuery(
            text=" ".join(words),
            filters=Filters(
                values=values,
                levels=chance.choice((None, None, 1, 3, 28)),
                published_from=chance.choice((None, None, around)),
                published_before=chance.choice((None, None, around + 1, around)),
            ),
            facets=tuple(facet for facet in Facet if chance.random() < 0.7),
            sort=chance.choice((Sort.RELEVANCE, *Sort)),
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


@pytest.mark.parametrize("query", some_queries(200, seed=11), ids=str)
def test_every_answer_is_the_plain_one(catalogue: Bench, query: SearchQuery) -> None:
    answer = catalogue.find(query)
    expected = oracle.matches(DOCUMENTS, query)
    page = expected[query.offset : query.offset + query.limit]
    assert [hit.id for hit in answer.hits] == [hit.id for hit in page]
    assert answer.total == len(expected)
    assert dict(answer.facets) == {facet: oracle.facet(DOCUMENTS, query, facet) for facet in query.facets}
