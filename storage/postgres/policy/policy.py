"""The policy in SQL: the clauses that lists ask of all rows at once, and one statement for each route that serves
bytes.

A statement of another file names a clause as `{seen_version}`; `with_clauses` puts it in. The clauses speak of the rows
`model`, `version` and `image`, and of the viewer by the parameters `account_id` and `moderator` unless stated
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import msgspec

from storage.errors import Gone, LinkRefused, NotFound
from storage.postgres.connection import Query, Rows, as_record, load_statements
from storage.records.accounts.accounts import Account, AccountStatus
from storage.records.catalog.catalog import CatalogImage, VersionFile
from storage.records.jobs.jobs import JobFile
from storage.records.policy.facts import Facts, Thing, own_facts
from storage.records.policy.viewers import ANYBODY, Viewer, viewer_of

_CLAUSES = (
    *("notified", "seen_comments", "seen_image", "seen_model", "seen_version", "shown_image", "has_power"),
    *("version_facts", "link_reader"),
)
"""In the order in which they are put in: one may name a later one."""


def with_clauses(
    statements: Mapping[str, str], account_id: str = "%(account_id)s::uuid", moderator: str = "%(moderator)s"
) -> Mapping[str, str]:
    """Statements with the policy's clauses put in. `account_id`, `moderator`: who the viewer is, as SQL."""
    filled: dict[str, str] = {}
    for name, statement in statements.items():
        # One pass in this order is enough: a clause names only clauses that come after it.
        for clause in _CLAUSES:
            statement = statement.replace(f"{{{clause}}}", CLAUSES[clause])
        filled[name] = statement.replace("{account_id}", account_id).replace("{moderator}", moderator)
    return filled


_STATEMENTS = load_statements(__file__)
CLAUSES: Mapping[str, str] = {
    # A clause stands in the middle of other lines, where its own comment at the margin would only be sent along.
    name: "\n".join(line for line in _STATEMENTS[name].splitlines() if not line.startswith("-- ")).strip()
    for name in _CLAUSES
}
SQL = with_clauses({name: text for name, text in _STATEMENTS.items() if name not in _CLAUSES})


def viewing(viewer: Viewer) -> dict[str, object]:
    """The parameters by which the clauses know a viewer."""
    return {"account_id": viewer.account_id, "moderator": viewer.moderator}


class FileWithFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A file, what decides about it, and the viewer that its link was made for."""

    file: VersionFile
    facts: Facts
    viewer: Viewer


class FoundImage(msgspec.Struct, frozen=True, kw_only=True):
    """An image, what decides about it, and the viewer that its address was made for."""

    image: CatalogImage
    facts: Facts
    viewer: Viewer


def file_by_id(file_id: int, reader: int | None) -> Query[FileWithFacts]:
    """A file behind a link that was made for the account of a number. Reading raises NotFound, LinkRefused."""

    def read(rows: Rows) -> FileWithFacts:
        if not rows:
            raise NotFound(f"File {file_id} is gone.")
        row = rows[0]
        return FileWithFacts(
            file=as_record(VersionFile, row), facts=as_record(Facts, row), viewer=_link_viewer(reader, row)
        )

    return Query(SQL["file_by_id"], {"id": file_id, "reader": reader}, read)


def file_by_path(version_id: int, path: str) -> Query[tuple[Facts, VersionFile | None]]:
    """What decides about a version's file, and the file; about the version when it has none there.

    Reading raises NotFound without such a version.
    """

    def read(rows: Rows) -> tuple[Facts, VersionFile | None]:
        if not rows:
            raise NotFound(f"No model version {version_id}.")
        facts = as_record(Facts, rows[0])
        return facts, as_record(VersionFile, rows[0]) if facts.thing is Thing.FILE else None

    return Query(SQL["file_by_path"], {"version_id": version_id, "path": path}, read)


def image(image_id: int, sha256: str | None = None, reader: int | None = None) -> Query[FoundImage]:
    """An image, gone ones too, by its number and bytes. Reading raises NotFound, and LinkRefused."""

    def read(rows: Rows) -> FoundImage:
        if not rows:
            raise NotFound(f"No image {image_id}.")
        row = rows[0]
        return FoundImage(
            image=as_record(CatalogImage, row), facts=as_record(Facts, row), viewer=_link_viewer(reader, row)
        )

    return Query(SQL["image"], {"id": image_id, "sha256": sha256, "reader": reader}, read)


def job_file(job_id: UUID, sha256: str) -> Query[tuple[Facts, JobFile]]:
    """A file of a job by its bytes, and what decides about it. Reading raises NotFound, and Gone for what shows a model
    that was taken down, or a model or photos that their owner has deleted."""

    def read(rows: Rows) -> tuple[Facts, JobFile]:
        if not rows:
            raise NotFound("The image is gone.")
        if rows[0]["taken_down"] is not None:
            raise Gone(f"The model that this image is of was taken down: {rows[0]['taken_down']}")
        if rows[0]["deleted"]:
            raise Gone("What this image shows was deleted.")
        facts = own_facts(rows[0]["owner_id"], owner_active=rows[0]["owner_active"])
        return facts, as_record(JobFile, rows[0])

    return Query(SQL["job_file"], {"job_id": job_id, "sha256": sha256}, read)


def _link_viewer(reader: int | None, row: Mapping[str, Any]) -> Viewer:
    """The viewer that a link was made for, as the account is now. Raises LinkRefused when it is banned."""
    if reader is None:
        return ANYBODY
    account = as_record(Account, row["reader"]) if row["reader"] is not None else None
    if account is None or account.status is AccountStatus.BANNED:
        raise LinkRefused("The account that the link was made for is banned. Load the page that shows it again.")
    return viewer_of(account)
