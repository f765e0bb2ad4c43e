"""A catalogue that changes at random, and a reader that notes every response that is empty or older than before."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias
from uuid import UUID

from storage.errors import StoreUnavailable, WrongState
from storage.postgres.accounts import accounts
from storage.postgres.catalog import models
from storage.postgres.connection import Query, Script
from storage.records.catalog.vocabulary import ModelType, Status
from storage.records.search.search import Filters, Kind, Rank, SearchQuery
from storage.settings import Settings
from storage.stores import AsyncStores, Stores, open_async_stores
from tests.storage.makers import a_published_model, an_account, an_image

STEADY, RANDOM_MODELS, ACCOUNTS = 5, 60, 6
WORDS = ("mug", "cat", "castle", "dragon", "portrait", "neon")


Change: TypeAlias = tuple[int, Script[object]]
"""How many rows will have been changed, and what changes them."""


def nothing() -> Script[object]:
    """What changes nothing."""
    yield from ()


@dataclass
class World:
    """A catalogue that changes at random. A steady model is never hidden, and each change of one adds a like."""

    stores: Stores
    seed: int
    accounts: list[UUID] = field(default_factory=list)
    steady: list[int] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._names = itertools.count()
        database = self.stores.database
        self.accounts = [database.run(accounts.ensure_account(f"creator{number}")).id for number in range(ACCOUNTS)]
        keeper = an_account(database, "keeper")
        for number in range(STEADY):
            model = a_published_model(database, keeper, f"steady {number}")
            an_image(database, model, meta={"prompt": "a steady mug"})
            self.steady.append(model.id)

    def write(self, rows: int = 1) -> None:
        """Random changes of so many rows in all, committed together; what is made is committed by itself."""

        def script(changes: list[Script[object]]) -> Script[None]:
            for change in changes:
                yield from change

        acts, weights = zip(*self._acts, strict=True)
        changes: list[Script[object]] = []
        while rows > 0:
            [act] = self._chance.choices(acts, weights)
            changed, change = act(rows)
            rows -= changed
            changes.append(change)
        self.stores.database.run(script(changes))

    @cached_property
    def _acts(self) -> list[tuple[Callable[[int], Change], int]]:
        """What may happen, given how many rows may be changed at most, with how often it does."""
        longer = "update models set {0} = {0} || 'x' where id = any(%(ids)s) returning id"
        based = "update model_versions set base_model = 'Pony' where model_id = any(%(ids)s) returning id"
        return [
            (lambda _: self.create(), 1),
            (lambda rows: self.touch(longer.format("description"), rows), 3),
            (lambda rows: self.touch(longer.format("name"), rows), 1),
            (lambda rows: self.touch(based, rows), 1),
            (lambda _: (1, self.publish_or_hide()), 2),
            (lambda _: (1, self.tag()), 1),
            (lambda _: (1, self.delete()), 1),
            (self.count, 2),
            (lambda _: (1, self.change_account()), 1),
            (lambda _: (1, self.change_steady()), 2),
        ]

    def create(self) -> Change:
        """Publish a model with an image, if there are few."""
        database = self.stores.database
        if len(self.ids) >= RANDOM_MODELS:
            return 0, nothing()
        name = f"{self._chance.choice(WORDS)} {next(self._names)}"
        model = a_published_model(database, self._chance.choice(self.accounts), name, type=ModelType.LORA)
        self.ids.append(model.id)
        an_image(database, model, meta={"prompt": f"a {self._chance.choice(WORDS)}"})
        return 1, nothing()

    def touch(self, statement: str, rows: int) -> Change:
        """Change something of so many models by SQL, as anybody with the database might."""
        some = self._some(rows)
        return len(some), iter(Query(statement, {"ids": some}, len))

    def _some(self, most: int) -> list[int]:
        return self._chance.sample(self.ids, min(most, len(self.ids)))

    def publish_or_hide(self) -> Script[object]:
        """Hide what is shown, show what is hidden."""

        def script(model_id: int) -> Script[object]:
            model = yield from models.lock(model_id)
            if model.status is Status.PUBLISHED:
                return (yield from models.unpublish(model))
            return (yield from models.publish(model))

        return script(self._chance.choice(self.ids)) if self.ids else nothing()

    def tag(self) -> Script[object]:
        """Give a model other tags."""
        tags = self._chance.sample(WORDS, self._chance.randint(0, 3))
        return models.set_tags(self._chance.choice(self.ids), tags) if self.ids else nothing()

    def delete(self) -> Script[object]:
        """Delete a model with its images, for ever."""

        def script(model_id: int) -> Script[object]:
            with contextlib.suppress(WrongState):
                yield from models.delete((yield from models.lock(model_id)), "test")

        if len(self.ids) <= RANDOM_MODELS // 2:
            return nothing()
        return script(self.ids.pop(self._chance.randrange(len(self.ids))))

    def count(self, rows: int) -> Change:
        """Counts of some models, of five at least, and of their images come in."""
        some = self._some(max(5, rows))

        def script() -> Script[object]:
            for statement in (
                "insert into model_stats (model_id, download_count) select unnest(%(ids)s::bigint[]), 1 on conflict"
                " (model_id) do update set download_count = model_stats.download_count + 1 returning model_id",
                "insert into image_stats (image_id, heart_count) select listing.id, 1 from image_listings listing"
                " where model_id = any(%(ids)s) order by listing.id on conflict (image_id)"
                " do update set heart_count = image_stats.heart_count + 1 returning image_id",
            ):
                yield from Query(statement, {"ids": some}, len)

        return min(rows, len(some)), script()

    def change_account(self) -> Script[object]:
        """Ban an account, pardon it, or give it another name."""
        statement = self._chance.choice(
            (
                "update accounts set name = %(name)s where id = %(id)s returning id",
                "update accounts set status = 'banned', ban_reason = 'spam' where id = %(id)s returning id",
                "update accounts set status = 'active', ban_reason = null where id = %(id)s returning id",
                "update accounts set status = 'active', ban_reason = null where id = %(id)s returning id",
            )
        )
        parameters = {"id": self._chance.choice(self.accounts), "name": f"creator{next(self._names)}x"}
        yield from Query(statement, parameters, len)

    def change_steady(self) -> Script[object]:
        """One more like for a steady model, told with an edit, so that it is due at once."""
        model_id = self._chance.choice(self.steady)
        for statement in (
            "update models set description = description || 'x' where id = %(id)s returning id",
            "insert into model_stats (model_id, thumbs_up_count) values (%(id)s, 1) on conflict (model_id)"
            " do update set thumbs_up_count = model_stats.thumbs_up_count + 1 returning model_id",
        ):
            yield from Query(statement, {"id": model_id}, len)


class Reader:
    """Asks as the API does, and notes every response that is empty or older than one before it."""

    def __init__(self, settings: Settings, steady: list[int]) -> None:
        self._settings, self._steady = settings, frozenset(steady)
        self.responses = self.refusals = 0
        self.likes = dict.fromkeys(steady, 0)
        self.faults: list[str] = []

    async def read(self, stop: threading.Event) -> None:
        """Read until told to stop."""
        async with open_async_stores(self._settings) as stores:
            while not stop.is_set():
                try:
                    await self._read(stores)
                except StoreUnavailable as error:
                    if "returns 429" not in str(error):  # only a server that is too busy may refuse
                        self.faults.append(str(error))
                    self.refusals += 1
                    await asyncio.sleep(0.5)
                else:
                    self.responses += 1

    async def _read(self, stores: AsyncStores) -> None:
        words = await stores.search.find(Kind.MODEL, SearchQuery(text="steady", limit=100))
        missing = self._steady - {hit.id for hit in words.hits}
        pictures = await stores.search.find(Kind.IMAGE, SearchQuery(text="steady", limit=100))
        keeper = await stores.search.find(Kind.CREATOR, SearchQuery(text="keeper"))
        if missing or pictures.total != STEADY or keeper.total != 1:
            self.faults.append(f"models {sorted(missing)}, {pictures.total} images, {keeper.total} creators")
        for identity, likes in self.likes.items():
            query = SearchQuery(text="steady", filters=Filters(at_least={Rank.LIKES: likes}), limit=100)
            if identity not in {hit.id for hit in (await stores.search.find(Kind.MODEL, query)).hits}:
                self.faults.append(f"model {identity} had {likes} likes before")
            more = SearchQuery(text="steady", filters=Filters(at_least={Rank.LIKES: likes + 1}), limit=100)
            if identity in {hit.id for hit in (await stores.search.find(Kind.MODEL, more)).hits}:
                self.likes[identity] = likes + 1
