"""A query is refused as it is made when it cannot be carried out."""

from __future__ import annotations

from typing import Any

import pytest

from storage.errors import InvalidRequest
from storage.records.search.relevance import MAX_WORDS
from storage.records.search.search import SearchMode, SearchQuery, Sort


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
