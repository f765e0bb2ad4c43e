"""How full the disks are and who holds what, for `darkroom status`."""

from __future__ import annotations

from collections.abc import Sequence

from storage.free_space import volumes
from storage.records.accounts.quotas import Limits, NamedUsage, in_units
from storage.settings import Settings

SHOWN_ACCOUNTS = 5


def disk_lines(settings: Settings) -> list[str]:
    """The free space of each disk that this machine writes to, and what happens under the floor.

    Where every store is elsewhere so may the API be: then the floor is looked at on its machine, or in its container.
    """
    floor = settings.quotas.free_space_bytes
    places = {volume: volume.free() for volume in volumes(settings)}
    free = ", ".join(f"{in_units(size)} for {volume.name}" for volume, size in places.items())
    low = [volume for volume, size in places.items() if size < floor]
    if not settings.has_embedded_stores:
        lines = [f"free here: {free}" + (f" ({in_units(floor)} must stay free where the API is)" if floor else "")]
        return lines + [
            f"too little is free in {volume.folder}: if the API is here, it refuses uploads and new jobs"
            for volume in low
        ]
    lines = [f"free: {free}" + (f" ({in_units(floor)} must stay free)" if floor else "")]
    return lines + [f"too little is free in {volume.folder}: uploads and new jobs are refused" for volume in low]


def usage_lines(found: Sequence[NamedUsage], limits: Limits) -> list[str]:
    """What each account holds beside what it may."""
    return [
        f"account {one.name}: {in_units(one.bytes)} held, {in_units(one.unfinished_bytes)} on their way in "
        f"{one.unfinished_uploads} uploads, {_allowed(limits)}"
        for one in found
    ]


def _allowed(limits: Limits) -> str:
    return f"{in_units(limits.account_bytes)} allowed" if limits.account_bytes else "no limit"
