"""Bytes on their way in: they count for their account from the first one on, until they are rows or are given up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from uuid import UUID, uuid4

from platform_api.access.guards import Caller
from storage.errors import QuotaExceeded, StoreFailure
from storage.postgres.accounts import accounts, quotas
from storage.postgres.connection import Query, Script
from storage.stores import AsyncStores

STEP = 16 * 1024 * 1024
"""Bytes that a sender who has not announced how many come is granted at once."""
# Often enough to be there when one renewal is missed, or five.
RENEWED_SECONDS = 600.0
"""A reservation that is not renewed is forgotten after an hour: its process died."""


class Reservation:
    """What one request may bring. Without a quota on bytes nothing is reserved, nor for what is not to be kept."""

    def __init__(self, stores: AsyncStores, caller: Caller, *, kept: bool = True) -> None:
        self._stores, self._caller, self._id, self._kept = stores, caller, uuid4(), kept
        self._limits = stores.settings.quotas.limits
        self._size, self._renew_at = 0, 0.0

    async def begin(self, declared: int) -> None:
        """Reserve what the sender says that it brings. Raises QuotaExceeded, FreeSpaceLow."""
        if self._kept:
            await self._stores.free_space.check()
        await self._ask(declared)

    async def arrived(self, total: int) -> None:
        """So many bytes have come. Raises QuotaExceeded when they are too many, FreeSpaceLow."""
        if not self._kept:
            return
        await self._stores.free_space.check()
        if total > self._size:
            try:
                # In steps, so that a stream of unknown length asks Postgres once for each 16 MiB, not for each piece.
                await self._ask(total + STEP - total % STEP)
            # The next step does not fit any more, but what has come so far may.
            except QuotaExceeded:
                await self._ask(total)
        elif time.monotonic() >= self._renew_at:
            await self._ask(self._size)

    async def becomes(self, size: int) -> None:
        """What was brought is to be kept as so many bytes. Raises QuotaExceeded."""
        await self._ask(size)

    def redeem(self) -> Script[None]:
        """For the transaction that writes the rows. Raises Unauthenticated and AccountBanned when the key that the
        bytes were sent with does not work any more."""
        # In the transaction of the rows: a key that was revoked while the bytes came must not make anything any more.
        yield from accounts.check_works(self._caller.key.id)
        yield from self.release()

    def release(self) -> Query[list[UUID]]:
        """Nothing is reserved any more."""
        return quotas.release(self._id)

    async def _ask(self, size: int) -> None:
        if self._kept and (self._limits.account_bytes or self._limits.unfinished_bytes):
            reserve = partial(quotas.reserve, self._id, self._caller.account_id, self._limits, size)
            await self._stores.database.run(reserve)
        self._size, self._renew_at = size, time.monotonic() + RENEWED_SECONDS


@asynccontextmanager
async def reserving(
    stores: AsyncStores, caller: Caller, declared: int | None, *, kept: bool = True
) -> AsyncGenerator[Reservation]:
    """A reservation of what a request says that it brings, gone at the end. Raises QuotaExceeded, FreeSpaceLow.

    `kept`: False for what is only compared with what came before, which a full account and a full disk may still be.
    """
    reservation = Reservation(stores, caller, kept=kept)
    try:
        await reservation.begin(declared or 0)
        yield reservation
    finally:
        with suppress(StoreFailure):  # then it is forgotten after an hour
            # Shielded, as a client that goes away cancels the request in the middle of this.
            await asyncio.shield(stores.database.run(reservation.release()))
