"""Writes of the catalogue at a steady rate, each with its bytes, and what of them was acknowledged when."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from storage.postgres.accounts import accounts
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Script
from storage.records.catalog.catalog import ModelFields, VersionFields
from storage.records.catalog.vocabulary import ModelType
from storage.settings import Settings
from storage.stores import Stores, open_stores
from tests.storage.makers import a_file

MODELS = 20
THREADS = 4
"""How many write at once: one waits for each commit, and does not keep up beside a backup."""


@dataclass(frozen=True)
class Acknowledged:
    """A committed version of a model: when, and the bytes that it names."""

    at: datetime
    version_id: int
    sha256: str


@dataclass
class Writer:
    """Publishes versions of a few models, with new bytes each, and changes what the models say in between."""

    stores: Stores
    acknowledged: list[Acknowledged] = field(default_factory=list)
    model_ids: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _done: list[int] = field(default_factory=list)

    @property
    def writes(self) -> int:
        """How many have been committed."""
        return len(self._done)

    def begin(self) -> None:
        """The models that it writes to, each with a version, so that it can be published."""
        account = self.stores.database.run(accounts.ensure_account("drill"))
        for number in range(MODELS):
            fields = ModelFields(name=f"drill {number}", type=ModelType.LORA)
            model_id = self.stores.database.run(models.create(account.id, fields)).id
            self.model_ids.append(model_id)
            self._add_version(model_id, f"first of {number}")

    def write(self, number: int) -> None:
        """One write: a version with its bytes, which are stored first; other words for a model; or its publication."""
        database, model_id = self.stores.database, self.model_ids[number % MODELS]
        model = database.run(catalog.model_by_id(model_id))
        match number % 3:
            case 0:
                self.acknowledged.append(self._add_version(model_id, f"v{number}"))
            case 1:
                database.run(lambda: models.change(model, {"description": f"write {number}"}))
            case _:
                database.run(lambda: models.publish(model))
        self._done.append(number)

    def _add_version(self, model_id: int, name: str) -> Acknowledged:
        blob = self.stores.blobs.put(f"weights {name} {time.time_ns()}".encode() * 100)

        def script() -> Script[int]:
            model = yield from models.lock(model_id)
            version = yield from versions.create(model, VersionFields(name=name, base_model="SD 1.5"))
            yield from catalog.add_files(version.id, [replace(a_file(blob.sha256), size=blob.size)])
            return version.id

        version_id = self.stores.database.run(script)
        return Acknowledged(datetime.now(UTC), version_id, blob.sha256)

    @contextmanager
    def writing(self, a_minute: float) -> Generator[None]:
        """Write so often for as long as the block lasts; what is late is made up for."""
        stop, began, pause = threading.Event(), time.monotonic(), 60.0 / a_minute
        places = itertools.count()

        def go_on() -> None:
            for place in places:
                if stop.wait(max(0.0, began + place * pause - time.monotonic())):
                    return
                try:
                    self.write(next(self._numbers))
                except Exception as error:  # noqa: BLE001 - whatever it is, the test says so
                    self.failures.append(repr(error))

        threads = [threading.Thread(target=go_on, name=f"writer-{each}") for each in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def end_on(self, settings: Settings) -> None:
        """Delete what was made, so that the lists of others are theirs."""
        with open_stores(settings) as stores:
            for model_id in self.model_ids:
                model = stores.database.run(catalog.model_by_id(model_id))
                stores.database.run(models.delete(model, "drill"))
