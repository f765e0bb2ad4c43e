"""How near words are, and how rankings become one."""

from __future__ import annotations

import pytest

from storage.records.search.relevance import MAX_WORDS, WHOLE_NAME_SCORE, Match, WordPlace, asked, fuse, word_score


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
