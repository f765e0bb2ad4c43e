"""Every facet is a condition of the embedded engine's searches: one that is forgotten there filters nothing."""

from __future__ import annotations

from storage.records.search.search import Facet
from storage.search.embedded import SQL


def test_every_facet_filters() -> None:
    assert [facet for facet in Facet if f"%({facet})s" not in str(SQL["matching"])] == []
