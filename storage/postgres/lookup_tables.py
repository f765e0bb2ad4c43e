"""Lookup tables: what a mapping of the code may name, as rows that others refer to.

Migrations create them, and `migrate` adds what a release names. A row is never deleted: older rows refer to it, and a
later release that runs beside this one may have added it.
"""

from __future__ import annotations

from typing import Any

import psycopg

from storage.errors import DarkroomError
from storage.postgres.connection import load_statements
from storage.records.notifications.channels import Channel

SQL = load_statements(__file__)


class MappingRefused(DarkroomError):
    """The code says of a name what the rows of before it contradict; nothing was added."""

    code = "mapping_refused"


def fill(connection: psycopg.Connection[Any]) -> None:
    """Add the rows that this release names. Raises MappingRefused. Does nothing before 0038 has run."""
    if connection.execute("select to_regclass('address_channels') is not null").fetchone() != (True,):
        return
    traits = [channel.outward for channel in Channel]
    names = {
        "names": list(Channel),
        "outward": [one is not None for one in traits],
        "signed": [one is not None and one.signed for one in traits],
    }
    with connection.transaction():
        connection.execute(SQL["add_channels"].encode(), names)
        unlike = [row[0] for row in connection.execute(SQL["unlike_channels"].encode(), names)]
        if unlike:
            raise MappingRefused(
                f"storage/records/notifications/channels.py says of {', '.join(unlike)} whether addresses are needed, "
                "and whether they have a secret, other than the database does. Their addresses of before would not "
                "fit: give the channel another name, or write a migration that changes both."
            )
