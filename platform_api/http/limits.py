"""How much one request may ask for, and how many may be under way at once."""

from __future__ import annotations

import base64
import binascii
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Hashable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, TypeVar

import msgspec
from litestar.params import Parameter

from storage.errors import InvalidRequest, TooManyRequests

T = TypeVar("T")
PageLimit = Annotated[int, Parameter(ge=1, le=200, description="Items in one page.", required=False)]
PageCursor = Annotated[
    str | None,
    Parameter(max_length=200, description="metadata.nextCursor of the page before.", required=False),
]

_Moment = Annotated[datetime, msgspec.Meta(tz=True)]
MOMENT_SCHEMA: dict[str, Any] = {"format": "date-time"}


class ConcurrencyLimit:
    """At most so many at once for one holder, and in all. A request beyond that is refused with the time to come
    back."""

    def __init__(self, what: str, *, per_account: int, total: int, retry_after: int = 5) -> None:
        self._what, self._per_account, self._total, self._retry_after = what, per_account, total, retry_after
        self._held: Counter[Hashable] = Counter()

    def check(self, holder: Hashable) -> None:
        """Raises TooManyRequests when no slot is left for the holder."""
        if self._held[holder] >= self._per_account:
            message = f"Too many {self._what} at once; the limit is {self._per_account}. Wait for one to end."
            raise TooManyRequests(message, self._retry_after)
        if self._held.total() >= self._total:
            message = f"This server has {self._total} {self._what}, which is its limit. Try again in a while."
            raise TooManyRequests(message, self._retry_after)

    @asynccontextmanager
    async def hold(self, holder: Hashable) -> AsyncGenerator[None]:
        """Hold one slot. Raises TooManyRequests when there is none left."""
        # Looked at and taken without an await in between: one event loop needs no lock.
        self.check(holder)
        self._held[holder] += 1
        try:
            yield
        finally:
            self._held[holder] -= 1
            # Or the counter would keep an entry for every account that ever came.
            if not self._held[holder]:
                del self._held[holder]


def write_cursor(*parts: object) -> str:
    """Where a page ended, opaque to clients."""
    return base64.urlsafe_b64encode("|".join(str(part) for part in parts).encode()).decode().rstrip("=")


def end_of_page(found: Sequence[T], limit: int, place: Callable[[T], tuple[object, ...]]) -> str | None:
    """The cursor of the page after the first `limit` of what was found; None when no more was. `place` is where the
    next page goes on after."""
    # Callers read one more than the limit: that it is there says that there is another page, without a count.
    return write_cursor(*place(found[limit - 1])) if len(found) > limit else None


def read_cursor(cursor: str, parts: int) -> list[str]:
    """What `write_cursor` was given, as text. Raises InvalidRequest for anything else."""
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True).decode("ascii").split("|")
    except (binascii.Error, UnicodeError) as error:
        raise wrong_cursor() from error
    if len(found) != parts or not all(part.isprintable() for part in found):
        raise wrong_cursor()
    return found


def read_number_cursor(cursor: str | None) -> int | None:
    """A cursor that is one number. Raises InvalidRequest."""
    if cursor is None:
        return None
    try:
        return read_number(read_cursor(cursor, 1)[0])
    except ValueError as error:
        raise wrong_cursor() from error


def read_number(text: str) -> int:
    """A number of a row that stands in a cursor. Raises ValueError."""
    if not text.isdigit() or len(text) > 18:
        raise ValueError(text)
    return int(text)


def read_moment_cursor(cursor: str | None, read: Callable[[str], T]) -> tuple[datetime, T] | None:
    """A cursor that is a time and something else, which `read` makes of its text or refuses with ValueError. Raises
    InvalidRequest."""
    if cursor is None:
        return None
    moment, rest = read_cursor(cursor, 2)
    try:
        return datetime.fromisoformat(moment), read(rest)
    except ValueError as error:
        raise wrong_cursor() from error


def wrong_cursor() -> InvalidRequest:
    """The refusal of a cursor that we did not write."""
    return InvalidRequest({"cursor": "must be metadata.nextCursor of an earlier page, unchanged"})


def read_moment(name: str, text: str | None) -> datetime | None:
    """The moment that a query's parameter names. Raises InvalidRequest for what is none, or has no offset."""
    if text is None:
        return None
    try:
        return msgspec.convert(text, _Moment)
    except msgspec.ValidationError:
        reason = "expected a date and a time with an offset, such as 2026-01-31T12:00:00Z; a + in a query is %2B"
        raise InvalidRequest({name: reason}) from None
