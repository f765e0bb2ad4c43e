"""The databases of a restored platform: filled from their dumps, and made fit to go on."""

from __future__ import annotations

from dataclasses import dataclass, field

import psycopg
from pydantic import SecretStr

from deployments.restore.database_mark import connected, databases, is_marked, mark, outside
from flows.indexing.bulk_load import fill
from flows.indexing.new_builds import begin
from flows.upkeep.backup import dumps
from flows.upkeep.backup.backup_store import BackupStore, Say
from flows.upkeep.backup.manifest import MLFLOW, PREFECT, Manifest
from storage.errors import BackupRefused
from storage.postgres.connection import Database
from storage.postgres.migrating import migrate
from storage.postgres.upkeep import prefect_restored, restored
from storage.records.search.search import Kind
from storage.settings import PostgresSettings, Settings, variable_of
from storage.stores import Stores, open_stores

# As libpq writes a version: 18.0.
EMBEDDED_SERVER = 180_000
_TABLES = """
select count(*) from pg_class
 where relkind in ('r', 'p') and relnamespace not in ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
"""


@dataclass
class Databases:
    """Where the dumps of a backup go. `notes` are sentences about what was left out."""

    settings: Settings
    manifest: Manifest
    notes: list[str] = field(default_factory=list)

    @property
    def urls(self) -> dict[str, str]:
        """psycopg URL by database, of those that are in the backup and have a place here."""
        return {name: url for name, url in databases(self.settings).items() if name in self.manifest.dumps and url}

    @property
    def outside(self) -> list[tuple[str, str]]:
        """Name and psycopg URL of those that are not in the data folder."""
        return [(name, url) for name, url in outside(self.settings) if name in self.urls]

    def check_search(self) -> None:
        """Raises StoreUnavailable when an Elasticsearch is set that does not respond."""
        if self.settings.search.elasticsearch_url.get_secret_value():
            with open_stores(self.settings) as stores:
                stores.search.existing()

    def check_empty(self) -> int:
        """The oldest version number of the servers, once each database outside the data folder is known to be empty, or
        left by a restore that died.

        Raises BackupRefused for one that has tables, StoreUnavailable for one that does not respond.
        """
        oldest = EMBEDDED_SERVER
        for name, url in self.outside:
            with connected(name, url) as connection:
                [tables] = connection.execute(_TABLES).fetchone() or [0]
                oldest = min(oldest, connection.info.server_version)
                marked = is_marked(connection)
            if tables and not marked:
                raise BackupRefused(
                    f"{name}'s database has {tables} tables, and a restore replaces nothing. Create an empty one, and "
                    "name it in the settings."
                )
        return oldest

    def fill(self, store: BackupStore, jump: int, hold_notifications: bool, say: Say) -> restored.Reopened:
        """Restore every dump, then move numbers on, give jobs a new attempt and build the search indexes."""
        backup = self.settings.backup
        # All marks before the first dump, so that no server of them starts while another one is being filled.
        for name, url in self.outside:
            mark(name, url)
        for name, file in self.manifest.dumps.items():
            if name not in self.urls:
                self.notes.append(
                    f"{name}'s database was not restored: {variable_of('backup', f'{name}_database')} is not set"
                )
                continue
            dumps.restore(backup, self.urls[name], store.pieces(self.manifest, file))
            say(f"{name}'s database")
        self._go_on_in_prefect_and_mlflow(jump)
        url = self.settings.postgres.url.get_secret_value()
        with Database(self.settings.postgres) as database:
            # Before the migration, whose last step then treats the rows as another cluster's, even on the same one.
            database.run(restored.leave_home())
        migrate(url, restoring=True)
        with open_stores(self.settings) as stores:
            reopened = stores.database.run(restored.reopen(jump=jump, hold_notifications=hold_notifications))
            for kind in Kind:
                say(f"searches of {kind}: {rebuild_index(stores, kind):,} documents")
        return reopened

    def _go_on_in_prefect_and_mlflow(self, jump: int) -> None:
        for name in (PREFECT, MLFLOW):
            if name not in self.urls:
                continue
            with Database(_settings_of(self.urls[name])) as database:
                database.run(restored.move_on(jump))
                if name == PREFECT:
                    self._close_runs(database)

    def _close_runs(self, database: Database) -> None:
        try:
            crashed = database.run(prefect_restored.close_unfinished_runs())
        except psycopg.Error as error:
            # Its schema is Prefect's own: another version of it must not end a restore.
            self.notes.append(f"Prefect still shows runs of the old machine as unfinished ({type(error).__name__})")
        else:
            self.notes.append(f"{crashed} unfinished flow runs are shown as crashed in Prefect")


def rebuild_index(stores: Stores, kind: Kind) -> int:
    """A search index of every listed row, read from now on; returns how many."""
    build = begin(stores, kind)
    documents = fill(stores, build)
    stores.search.complete(build)
    stores.search.refresh(build)
    stores.search.swap(build)
    return documents


def _settings_of(url: str) -> PostgresSettings:
    return PostgresSettings(url=SecretStr(url))
