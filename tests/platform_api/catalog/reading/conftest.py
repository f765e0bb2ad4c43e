"""What the tests of reading share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from storage.blobs.store import BlobStore
from storage.postgres.catalog import catalog
from storage.records.catalog.catalog import NewImage
from tests.platform_api.catalog.reading.shelf import FULL, PRUNED, Shelf, put
from tests.platform_api.door import photo, serving


@pytest.fixture(scope="module")
def shelf(module_database_url: str, valkey_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """A door of the module's own with a model, its two files and an image."""
    with serving(tmp_path_factory.mktemp("shelf"), module_database_url, valkey_server) as door:
        model, version = put(
            door, "Copper Lantern", FULL, PRUNED, tags=("style", "lighting"), description="<p>Warm.</p>"
        )
        picture = BlobStore(door.settings.blobs).put(photo(3))
        image = NewImage(
            sha256=picture.sha256, size=picture.size, media_type="image/png", width=64, height=48, blurhash="L0"
        )
        door.database.run(catalog.add_images(version.id, door.account_id, [image]))
        yield Shelf(door, model, version)
