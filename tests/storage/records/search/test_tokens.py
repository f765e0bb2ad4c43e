"""How texts become words, how near words are, how rankings become one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.errors import InvalidRequest
from storage.records.search.relevance import MAX_WORDS, WHOLE_NAME_SCORE, Match, WordPlace, asked, fuse, word_score
from storage.records.search.search import SearchMode, SearchQuery, Sort
from storage.records.search.tokens import MAX_LETTERS, allowed_edits, asked_words, edits, fold, stem, whole, words_of
from storage.search.lexemes import deletes, kept_deletes
from tests.contracts.oracle import distance


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("SDXL-1.0", ("sdxl", "1", "0")),
        ("style/anime_girl", ("style", "anime", "girl")),
        ("v1.5-pruned-emaonly", ("v1", "5", "pruned", "emaonly")),
        ("C++", ("c",)),
        ("Crème BRÛLÉE Łódź Straße", ("creme", "brulee", "lodz", "strasse")),
        ("ｶﾞﾝﾀﾞﾑ ＦＵＬＬ", ("ガ", "ン", "ダ", "ム", "ガン", "ンダ", "ダム", "full")),
        ("可爱的猫cat", ("可", "爱", "的", "猫", "可爱", "爱的", "的猫", "cat")),
        ("हिन्दी", ("हिन्दी",)),
        ("the The THE", ("the",)),
        ("!!! ... \u0301 \x00", ()),
        ("a" * 100, ("a" * MAX_LETTERS,)),
    ],
)
def test_a_text_has_these_words(text: str, words: tuple[str, ...]) -> None:
    assert words_of(text) == words


def test_of_a_word_that_is_asked_for_twice_the_last_place_counts() -> None:
    assert asked_words("cat dog cat") == ("dog", "cat")
    assert asked_words("猫") == ("猫",)
    assert asked_words("猫咪的") == ("猫咪", "咪的")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40))
def test_a_document_has_every_word_of_its_own_text(text: str) -> None:
    assert set(asked_words(text)) <= set(words_of(text))
    assert words_of(fold(text)) == words_of(text)
    assert whole(whole(text)) == whole(text)


@settings(max_examples=300, deadline=None)
@given(st.text("abc", max_size=9), st.text("abc", max_size=9), st.integers(0, 2))
def test_edits_are_those_of_the_textbook(first: str, second: str, most: int) -> None:
    assert edits(first, second, most) == min(distance(first, second), most + 1)


@settings(max_examples=300, deadline=None)
@given(st.text("abcd", min_size=4, max_size=10), st.text("abcd", min_size=1, max_size=10))
def test_words_within_the_allowed_edits_share_a_form_with_letters_left_out(asked_word: str, kept: str) -> None:
    allowed = allowed_edits(asked_word)
    if distance(asked_word, kept) <= allowed:
        assert set(deletes(asked_word, allowed)) & set(kept_deletes(kept))


def test_a_number_has_no_typing_errors() -> None:
    assert [allowed_edits(word) for word in ("cat", "cats", "dragonf", "dragonfl", "20240101")] == [0, 1, 1, 2, 0]


@pytest.mark.parametrize(
    ("plural", "single"),
    [
        ("cats", "cat"),
        ("boxes", "box"),
        ("stories", "story"),
        ("buses", "bus"),
        ("houses", "house"),
        ("witches", "witch"),
    ],
)
def test_a_plural_has_the_stem_of_its_word(plural: str, single: str) -> None:
    assert stem(plural) == stem(single)


def test_what_is_no_plural_keeps_its_end() -> None:
    assert [stem(word) for word in ("glass", "bus", "iris", "gas", "ças")] == ["glass", "bus", "iris", "gas", "ças"]


def test_the_scores_of_many_words_keep_the_order_of_the_ways() -> None:
    places = (WordPlace.NAME - WordPlace.BODY) * MAX_WORDS
    assert places < Match.PLURAL
    assert places + Match.PLURAL * MAX_WORDS < Match.PREFIX
    assert places + Match.PLURAL * MAX_WORDS + Match.PREFIX < Match.ONE_EDIT
    assert word_score(Match.TWO_EDITS, WordPlace.BODY) > 0
    assert word_score(Match.EXACT, WordPlace.NAME) * MAX_WORDS + WHOLE_NAME_SCORE < 2**24  # whole in a 32-bit float


def test_only_the_last_word_may_be_a_beginning() -> None:
    assert [(word.word, word.begins) for word in asked("dr dr dra").words] == [("dr", False), ("dra", True)]
    assert [word.begins for word in asked("big d").words] == [False, False]


def test_fusion_adds_reciprocal_ranks_and_breaks_ties_by_id() -> None:
    fused = fuse([7, 3], [3, 7], [9])
    assert [hit.id for hit in fused] == [3, 7, 9]
    assert fused[0].score == pytest.approx(1 / 61 + 1 / 62)
    assert len(fuse(list(range(500)))) == 200
    assert fuse() == []


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 1001},
        {"limit": 1, "offset": 1000},
        {"limit": -1},
        {"offset": -1},
        {"text": "a" * 1001},
        {"text": " ".join(f"w{number}" for number in range(MAX_WORDS + 1))},
        {"mode": SearchMode.SEMANTIC, "text": " "},
        {"mode": SearchMode.FUSED, "text": "cat", "sort": Sort.NEWEST},
    ],
)
def test_a_query_that_cannot_be_carried_out_is_refused_by_field(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        SearchQuery(**fields)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_plain_text_is_split_as_any_other(text: str) -> None:
    longer = words_of(text + " é")
    assert words_of(text) == (longer if "e" in words_of(text) else longer[:-1])
