"""What an account holds beside what it may, and the words for it."""

from __future__ import annotations

import msgspec

from storage.errors import QuotaExceeded

_TO_DELETE = (
    "Delete models, images, data sets, uploads or files of jobs that have ended (DELETE .../files) first; "
    "GET /api/v1/me says what holds how much. What is deleted counts for about a day more."
)
MIB = 1024 * 1024
GIB = 1024 * MIB
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an account holds: `bytes` of files, images, photos and what its jobs made; `released_bytes` that it has
    deleted and the blob store still has; `unfinished_bytes` that it has begun to send, `unfinished_uploads` of them by
    tus."""

    bytes: int
    released_bytes: int
    unfinished_bytes: int
    unfinished_uploads: int

    @property
    def total(self) -> int:
        """All bytes that count."""
        return self.bytes + self.released_bytes + self.unfinished_bytes


class NamedUsage(Usage, frozen=True, kw_only=True):
    """The same with the account's name."""

    name: str


class UsageByKind(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes that an account holds, by what they are of. `images`: also those that it sent for generations; `jobs`:
    their files and checkpoints."""

    models: int
    images: int
    data_sets: int
    jobs: int


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one account may hold, as the settings say; 0: no limit."""

    account_bytes: int
    unfinished_bytes: int
    unfinished_uploads: int


def check_quota(usage: Usage, limits: Limits, *, adding: int, uploads: int = 0) -> None:
    """Raises QuotaExceeded when `adding` more bytes, or `uploads` more unfinished uploads, are too many; for a
    submission that brings none when the account is full already."""
    total = usage.total + max(adding, 1)
    if limits.account_bytes and total > limits.account_bytes:
        held = f"{in_units(usage.total)} of {in_units(limits.account_bytes)} are used"
        asked = f", {in_units(adding)} more do not fit" if adding else ""
        kept = (
            f", {in_units(usage.released_bytes)} of them deleted, but not yet from the disk"
            if usage.released_bytes
            else ""
        )
        raise QuotaExceeded(f"This account is full: {held}{kept}{asked}. {_TO_DELETE}")
    if limits.unfinished_bytes and adding and usage.unfinished_bytes + adding > limits.unfinished_bytes:
        begun = f"{in_units(usage.unfinished_bytes)} are on their way already; {in_units(adding)} more are too many"
        raise QuotaExceeded(f"{begun}: the limit is {in_units(limits.unfinished_bytes)}. Finish or delete some first.")
    if limits.unfinished_uploads and uploads and usage.unfinished_uploads + uploads > limits.unfinished_uploads:
        begun = f"{usage.unfinished_uploads} unfinished uploads; the limit is {limits.unfinished_uploads}"
        raise QuotaExceeded(f"{begun}. Finish or delete some first.")


def in_units(size: int) -> str:
    """Bytes for a person: 512 bytes, 1.5 GiB."""
    value, unit = float(size), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{value:,.0f} {_UNITS[unit]}" if value == int(value) else f"{value:,.1f} {_UNITS[unit]}"
