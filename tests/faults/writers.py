"""Writes of the catalogue at a steady rate, each with its bytes, and what of them was acknowledged when."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from storage.postgres import access, catalog, models, versions
from storage.records.catalog import ModelFields, VersionFields
from storage.records.vocabulary import ModelType
from storage.settings import Settings
from storage.stores import Stores, open_stores
from tests.storage.makers import a_file

MODELS = 20


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
    writes: int = 0
    failures: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """The models that it writes to."""
        account = self.stores.database.run(access.ensure_account("drill"))
        for number in range(MODELS):
            fields = ModelFields(name=f"drill {number}", type=ModelType.LORA)
            self.model_ids.append(self.stores.database.run(models.create(account.id, fields)).id)

    def write(self) -> None:
        """One write: a version with its bytes, which are stored first; other words for a model; or its publication."""
        database = self.stores.database
        model = database.run(catalog.model_by_id(self.model_ids[self.writes // 3 % MODELS]))
        match self.writes % 3:
            case 0:
                blob = self.stores.blobs.put(f"weights {self.writes} {time.time_ns()}".encode() * 100)
                wanted = VersionFields(name=f"v{self.writes}", base_model="SD 1.5")
                version = database.run(versions.create(model, wanted))
                database.run(catalog.add_files(version.id, [replace(a_file(blob.sha256), size=blob.size)]))
                self.acknowledged.append(Acknowledged(datetime.now(UTC), version.id, blob.sha256))
            case 1:
                database.run(models.change(model, {"description": f"write {self.writes}"}))
            case _:
                database.run(models.publish(model))
        self.writes += 1

    @contextmanager
    def writing(self, a_minute: float) -> Generator[None]:
        """Write so often for as long as the block lasts."""
        stop, pause = threading.Event(), 60.0 / a_minute

        def go_on() -> None:
            due = time.monotonic()
            while not stop.is_set():
                try:
                    self.write()
                except Exception as error:  # noqa: BLE001 - whatever it is, the test says so
                    self.failures.append(repr(error))
                due += pause
                stop.wait(max(0.0, due - time.monotonic()))

        thread = threading.Thread(target=go_on, name="writer")
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    def end_on(self, settings: Settings) -> None:
        """Delete what was made, so that the lists of others are theirs."""
        with open_stores(settings) as stores:
            for model_id in self.model_ids:
                model = stores.database.run(catalog.model_by_id(model_id))
                stores.database.run(models.delete(model, "drill"))
