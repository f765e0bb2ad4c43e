"""Keys looked up in Postgres with every request, and those that nobody knows yet counted before that.

A key that worked lately at this process is not counted: its requests cost what they did. Whether it still works
Postgres says each time.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from datetime import UTC, datetime, timedelta
from typing import cast
from weakref import WeakValueDictionary

from cachetools import TTLCache
from litestar.types import Scope

from platform_api.http.rate_limits import address_of
from storage.errors import StoreFailure, TooManyRequests, Unauthenticated
from storage.postgres.accounts import accounts
from storage.records.accounts.accounts import Account, ApiKey
from storage.stores import AsyncStores

LOG = logging.getLogger("darkroom.api")

CACHED_SECONDS = 600.0
MAX_CACHED = 10_000
NOTED_EVERY = timedelta(minutes=1)
WRITTEN_EVERY_SECONDS = 2.0


class KeyChecks:
    """What one process knows of the keys it is sent: which ones worked lately, and which uses are still to be noted."""

    def __init__(self, stores: AsyncStores) -> None:
        self._stores = stores
        # Only that a key worked, not whose it is: a cached response would let a revoked key in until it runs out.
        self._worked: TTLCache[str, None] = TTLCache(MAX_CACHED, CACHED_SECONDS)
        # Weak, so that a lock goes with the last request that waits for it.
        self._first_asks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._used: dict[str, datetime] = {}

    async def find(self, scope: Scope, key_id: str, secret: str) -> tuple[ApiKey, Account]:
        """The working key of this id and secret, and its account.

        Raises Unauthenticated for any other, TooManyRequests when its address has sent too many of those: then Postgres
        is not asked.
        """
        # Only the hash is kept here and counted in Valkey, never the secret.
        digest = hashlib.sha256(f"{key_id}_{secret}".encode()).hexdigest()
        if digest in self._worked:
            return await self._look_up(digest, key_id, secret)
        # Many requests with one new key are one question: a client that begins with a hundred is not a hundred keys.
        lock = self._first_asks.setdefault(digest, asyncio.Lock())
        async with lock:
            if digest in self._worked:
                return await self._look_up(digest, key_id, secret)
            return await self._look_up_first(scope, digest, key_id, secret)

    async def _look_up_first(self, scope: Scope, digest: str, key_id: str, secret: str) -> tuple[ApiKey, Account]:
        address, failed = address_of(scope), self._stores.failed_keys
        limit = self._stores.settings.limits.failed_keys
        # Counted before Postgres is asked, and taken back if it works: so many wrong keys at once cost no more than the
        # limit.
        admission = await failed.admit(address, digest, limit)
        if admission.wait_seconds:
            message = f"Too many API keys that do not work came from this address: {limit:,} a minute are looked up."
            raise TooManyRequests(f"{message} Go on in {admission.wait_seconds} s.", admission.wait_seconds)
        try:
            found = await self._look_up(digest, key_id, secret)
        except Unauthenticated:
            # It may have worked lately: the mark of that would let it past the count of its address for an hour.
            if limit:
                await failed.forget(digest)
            raise
        except StoreFailure:
            if admission.counted:
                await failed.take_back(address, digest, works=False)
            raise
        if admission.counted:
            await failed.take_back(address, digest, works=True)
        return found

    async def _look_up(self, digest: str, key_id: str, secret: str) -> tuple[ApiKey, Account]:
        found, now = await self._stores.database.run(accounts.authenticate(key_id)), datetime.now(UTC)
        # Forgotten at once: a revoked key that was still known here would never be counted, however often it is sent.
        if found is None or not found[0].works(secret, now):
            self._worked.pop(digest, None)
            raise Unauthenticated("The API key is unknown, expired or revoked. Make one with: darkroom key create")
        self._worked[digest] = None
        last = found[0].last_used_at
        # Once a minute for a key, and gathered: a row written with every read would cost more than the read.
        if last is None or last <= now - NOTED_EVERY:
            self._used[found[0].id] = now
        return found

    async def note_uses(self) -> None:
        """Write when keys were used. What Postgres does not take now is left to their next use."""
        used, self._used = self._used, {}
        if used:
            try:
                await self._stores.database.run(accounts.note_used(used))
            except StoreFailure as error:
                LOG.warning("the use of %d keys is not noted: %s", len(used), error)

    async def keep_noting(self) -> None:
        """Write every other second, until cancelled."""
        while True:
            await asyncio.sleep(WRITTEN_EVERY_SECONDS)
            try:
                await self.note_uses()
            except Exception:
                LOG.exception("uses of keys could not be noted")


def key_checks(scope: Scope) -> KeyChecks:
    """Those of the process."""
    return cast(KeyChecks, scope["litestar_app"].state.key_checks)
