"""A request's body while it arrives, with its limit enforced.

What a client says about its body (Content-Length) is checked against what comes, never believed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

from litestar import Request
from litestar.exceptions import HTTPException

from platform_api.http.problems import BodyTooLarge, MalformedBody, TooSlow
from storage.errors import FreeSpaceLow, ShuttingDown, StoreFailure
from storage.postgres.accounts import accounts

SILENT_SECONDS = 30.0
KEY_SECONDS = 10.0
"""A body's key is looked at again this often while the body comes, however slowly."""
DRAIN_SECONDS = 10.0
_GOES_ON = "The server stops and keeps what it has. Go on in a few seconds, from where the upload says it is."


class Body:
    """A request's bytes as they come, never more than `limit`, and never waiting for ever.

    `too_many` is what a client reads that sends more. `arrived` is called for each piece, with how many bytes have
    come, and may refuse it.
    """

    def __init__(
        self,
        request: Request[Any, Any, Any],
        limit: int,
        too_many: str,
        arrived: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._request, self._limit, self._too_many, self._arrived = request, limit, too_many, arrived
        self._stream: AsyncIterator[bytes] = request.stream()
        self._ended = self._stopped = False
        self._silence: asyncio.Timeout | None = None

    @property
    def declared_length(self) -> int | None:
        """What the client says that it will send; None when it does not."""
        declared = self._request.headers.get("content-length", "")
        # 20 digits are too many for any limit, and Python refuses to read thousands.
        return int(declared[:20]) if declared.isdigit() else None

    def check_declared_length(self) -> None:
        """Raises BodyTooLarge when the client says that it will send too much."""
        if (self.declared_length or 0) > self._limit:
            raise BodyTooLarge(self._too_many)

    async def large_pieces(self, size: int) -> AsyncGenerator[bytes]:
        """The bytes as `pieces` returns them, gathered to at least `size` each but the last.

        What came before an error is given first: nothing that arrived is lost.
        """
        gathered = bytearray()
        try:
            async for piece in self.pieces():
                gathered += piece
                if len(gathered) >= size:
                    yield bytes(gathered)
                    gathered.clear()
        except (TooSlow, MalformedBody, FreeSpaceLow, ShuttingDown):
            if gathered:
                yield bytes(gathered)
            raise
        if gathered:
            yield bytes(gathered)

    async def pieces(self) -> AsyncGenerator[bytes]:
        """The bytes. Raises BodyTooLarge, TooSlow, MalformedBody when the client leaves, ShuttingDown after `stop`, and
        what `arrived` does; Unauthenticated and AccountBanned once the key does not work any more."""
        came, looked_at = 0, time.monotonic()
        while (piece := await self._next()) is not None:
            came += len(piece)
            if came > self._limit:
                raise BodyTooLarge(self._too_many)
            if self._arrived is not None:
                await self._arrived(came)
            if time.monotonic() - looked_at >= KEY_SECONDS:
                await self._check_key()
                looked_at = time.monotonic()
            yield piece

    async def _check_key(self) -> None:
        caller = getattr(self._request.state, "caller", None)
        if caller is not None:
            with suppress(StoreFailure):  # looked at again with later bytes, and when they become a row
                await self._request.app.state.stores.database.run(accounts.check_works(caller.key.id))

    def stop(self) -> None:
        """Take no more bytes: the process stops."""
        self._stopped = True
        if self._silence is not None:
            # Wakes a read that is waiting for bytes; a flag alone would be seen with the next piece.
            self._silence.reschedule(asyncio.get_running_loop().time())

    async def drain(self) -> None:
        """Read on for a while, so that the refusal reaches a client that is still sending."""
        try:
            async with asyncio.timeout(DRAIN_SECONDS):
                dropped = 0
                # Bounded in bytes as well as in time: a client that was refused for its size must not send it all.
                while dropped <= self._limit and (piece := await self._next()) is not None:
                    dropped += len(piece)
        except (TimeoutError, TooSlow, MalformedBody):
            return

    async def _next(self) -> bytes | None:
        if self._ended:
            return None
        if self._stopped:
            raise ShuttingDown(_GOES_ON)
        try:
            # For each piece, not for the whole: a slow line may take hours for a model, a silent one holds a slot for
            # nothing.
            async with asyncio.timeout(SILENT_SECONDS) as self._silence:
                return await anext(self._stream)
        except StopAsyncIteration:
            self._ended = True
            return None
        except TimeoutError as error:
            self._ended = True
            if self._stopped:
                raise ShuttingDown(_GOES_ON) from error
            raise TooSlow(f"No bytes came for {SILENT_SECONDS:.0f} s. Send the upload again.") from error
        # Litestar's word for a client that has left is an InternalServerException, a 500.
        except HTTPException as error:
            self._ended = True
            raise MalformedBody("The body ended before it was whole. Send the upload again.") from error
        finally:
            self._silence = None
