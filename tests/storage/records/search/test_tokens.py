"""How texts become words."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records.search.tokens import MAX_LETTERS, allowed_edits, asked_words, edits, fold, stem, whole, words_of
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


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_plain_text_is_split_as_any_other(text: str) -> None:
    longer = words_of(text + " é")
    assert words_of(text) == (longer if "e" in words_of(text) else longer[:-1])
