"""Stores over each search engine, and a catalogue that changes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pytest
from pydantic import SecretStr

from flows.indexing.new_builds import begin
from storage.postgres.connection import Query
from storage.postgres.search import search_builds, search_sources
from storage.records.search.search import Build, Kind
from storage.settings import JobSettings, MlflowSettings, SearchSettings, Settings
from storage.stores import Stores, open_stores
from tests.no_prefect import effects_without_prefect
from tests.storage.makers import an_account


@pytest.fixture(params=["embedded", "elasticsearch"])
def search_settings(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Settings of a test's own stores, on one engine, without an encoder."""
    url = request.getfixturevalue("elasticsearch_url") if request.param == "elasticsearch" else ""
    search = SearchSettings(
        elasticsearch_url=SecretStr(url), index_prefix=f"test-{uuid.uuid4().hex[:12]}", encoder_folder="off"
    )
    unreachable = MlflowSettings(url="http://127.0.0.1:9")
    fields = {"search": search, "mlflow": unreachable, "jobs": JobSettings(patience_seconds=20)}
    return settings.model_copy(update=fields)


@dataclass
class Catalogue:
    """Models that change, and the index that follows them."""

    stores: Stores
    owner: UUID

    def take_events(self, *kinds: Kind) -> None:
        """What the relay does with the catalogue's events, for models or these kinds alone; no Prefect is needed."""
        effects_without_prefect(self.stores).drain()
        others = "delete from search_queue where kind <> all(%(kinds)s) returning id"
        self.stores.database.run(Query(others, {"kinds": [*(kinds or (Kind.MODEL,))]}, len))

    def live(self) -> Build:
        """The build that is read."""
        build = self.stores.database.run(search_builds.live(Kind.MODEL, self.stores.search.engine))
        assert build is not None
        return build

    def indexed(self, build: Build | None = None) -> list[tuple[int, int]]:
        """Ids and revisions in a build, the live one when none is named."""
        chosen = build or self.live()
        self.stores.search.refresh(chosen)
        return self.stores.search.revisions(chosen, after=0, limit=10_000)

    def listed(self) -> list[tuple[int, int]]:
        """Ids and revisions of the listed rows."""
        return self.stores.database.run(search_sources.revisions(Kind.MODEL, 0, 100_000))

    def touch(self, model_id: int, statement: str) -> None:
        """Change a row, as anybody with the database might."""
        self.stores.database.run(Query(statement, {"id": model_id}, len))


@pytest.fixture
def catalogue(search_settings: Settings) -> Iterator[Catalogue]:
    """An account, an empty live build, nothing waiting."""
    with open_stores(search_settings) as stores:
        made = Catalogue(stores, an_account(stores.database))
        stores.search.swap(begin(stores, Kind.MODEL))
        stores.search.complete(made.live())
        yield made
        for build in stores.database.run(search_builds.of_engine(stores.search.engine)):
            stores.search.drop(build)


def environment(settings: Settings) -> dict[str, str]:
    """What another process needs to open the same stores."""
    search = settings.search
    return {
        **os.environ,
        "DARKROOM_DATA_FOLDER": str(settings.data_folder),
        "DARKROOM_POSTGRES__URL": settings.postgres.url.get_secret_value(),
        "DARKROOM_SEARCH__ELASTICSEARCH_URL": search.elasticsearch_url.get_secret_value(),
        "DARKROOM_SEARCH__INDEX_PREFIX": search.index_prefix,
        "DARKROOM_SEARCH__ENCODER_FOLDER": "off",
        "DARKROOM_MLFLOW__URL": settings.mlflow.url,
    }
