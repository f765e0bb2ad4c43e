"""Who is looking: an account, or anybody."""

from __future__ import annotations

from uuid import UUID

import msgspec

from storage.records.accounts.accounts import Account, Role

EVERY_LEVEL, WITH_BLOCKED = 31, 63
"""Browsing levels as bits: those of what is shown, and with what a moderator has blocked."""


class Viewer(msgspec.Struct, frozen=True, kw_only=True):
    """Who is looking: an account by its working key or by a link that was made for it, or anybody."""

    account_id: UUID | None = None
    moderator: bool = False

    def is_account(self, account_id: UUID | None) -> bool:
        """Whether this is the viewer's own account. Anybody is nobody's."""
        return self.account_id is not None and self.account_id == account_id

    def has_power_over(self, owner_id: UUID) -> bool:
        """Whether everything of this owner in the catalogue is shown and may be changed: to itself and to moderators.

        The same in SQL: `has_power` in storage/postgres/policy/policy.sql.
        """
        return self.moderator or self.is_account(owner_id)

    def browsing(self, asked: int) -> int:
        """Those of the asked browsing levels that the viewer is shown in lists: what is blocked, to moderators."""
        return asked & (WITH_BLOCKED if self.moderator else EVERY_LEVEL)


ANYBODY = Viewer()


def viewer_of(account: Account) -> Viewer:
    """The viewer that an account is."""
    return Viewer(account_id=account.id, moderator=account.role is Role.MODERATOR)
