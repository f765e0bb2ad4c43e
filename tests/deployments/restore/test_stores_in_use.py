"""A search cluster that a platform reads is not restored into. That nothing is written before: test_restoration.py."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from elasticsearch import Elasticsearch
from pydantic import SecretStr

from deployments.restore.stores_in_use import refuse_stores_in_use
from storage.errors import BackupRefused
from storage.settings import RedisSettings, SearchSettings, Settings


def test_an_elasticsearch_that_a_platform_reads_is_left_alone(
    database_url: str, tmp_path: Path, elasticsearch_url: str
) -> None:
    search = SearchSettings(
        elasticsearch_url=SecretStr(elasticsearch_url), index_prefix=f"test-{uuid4().hex[:12]}", encoder_folder="off"
    )
    settings = Settings(
        data_folder=tmp_path, redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/2")), search=search
    )
    settings.postgres.url = SecretStr(database_url)
    refuse_stores_in_use(settings)
    index, alias = f"{search.index_prefix}-models-1", f"{search.index_prefix}-models"
    with Elasticsearch(elasticsearch_url) as client:
        client.indices.create(index=index, aliases={alias: {}})
        try:
            with pytest.raises(BackupRefused, match="ELASTICSEARCH_URL names a cluster where searches of models"):
                refuse_stores_in_use(settings)
            assert set(client.indices.get(index=f"{search.index_prefix}-*").raw) == {index}
        finally:
            client.indices.delete(index=index)
