"""The flows of the search index as Prefect runs them: one file, which runs where a Prefect server is."""

from __future__ import annotations

import pytest

from flows.indexing import sync
from flows.indexing.rebuild import rebuild_search_index
from flows.runs import draining_flows
from flows.runs.flow_names import SYNC
from storage.records.search.search import Kind
from storage.settings import Settings
from tests.flows.indexing.conftest import Catalogue, environment
from tests.storage.makers import a_published_model


@pytest.mark.parametrize("search_settings", ["embedded"], indirect=True)
def test_the_flows_do_it_as_prefect_runs_them(
    catalogue: Catalogue, search_settings: Settings, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(search_settings).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(draining_flows, "IDLE_SECONDS", 0.1)
    before = catalogue.live()
    a_published_model(catalogue.stores.database, catalogue.owner)
    catalogue.take_events()
    assert sync.sync_search_index() == 1
    assert catalogue.indexed(before) == catalogue.listed()
    assert rebuild_search_index(Kind.MODEL) == catalogue.live().id != before.id
    with catalogue.stores.database.session_lock(SYNC):
        assert sync.sync_search_index() == 0
