"""Words that differ by typing errors share a form with letters left out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from storage.records.search.tokens import allowed_edits
from storage.search.lexemes import deletes, kept_deletes
from tests.contracts.oracle import distance


@settings(max_examples=300, deadline=None)
@given(st.text("abcd", min_size=4, max_size=10), st.text("abcd", min_size=1, max_size=10))
def test_words_within_the_allowed_edits_share_a_form_with_letters_left_out(asked_word: str, kept: str) -> None:
    allowed = allowed_edits(asked_word)
    if distance(asked_word, kept) <= allowed:
        assert set(deletes(asked_word, allowed)) & set(kept_deletes(kept))
