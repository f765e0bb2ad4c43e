"""A version of a model."""

from __future__ import annotations

from storage.postgres.catalog import catalog, versions
from storage.postgres.connection import Database
from tests.storage.makers import a_published_model, a_version, an_account
from tests.storage.postgres.catalog.test_models import current


def test_a_version_hides_and_goes_alone(database: Database) -> None:
    model = a_published_model(database, an_account(database))
    second = a_version(database, model, name="v2", sha256="e" * 64)
    database.run(versions.publish(second))
    assert current(database, model).public_versions == (second.id, model.public_versions[0])
    database.run(versions.delete(second, "deleted by its owner"))
    assert current(database, model).public_versions == model.public_versions
    assert [version.id for version in database.run(catalog.versions([model.id]))] == list(model.public_versions)
