"""What the first `up` puts in place: the keys that sign and seal, the owner's account and key, the starter model.

Everything here may be repeated: what is there stays.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from deployments.base_models.base_folders import shipped_folder
from deployments.base_models.registration import register_folder
from flows.indexing.new_builds import ensure_live_builds
from storage.errors import StoreUnavailable
from storage.postgres.accounts import accounts
from storage.postgres.connection import Database, Query
from storage.records.accounts.accounts import NewKey, Role, Scope, make_key, split_key
from storage.secret_files import write_secret
from storage.settings import Settings
from storage.stores import open_stores

log = logging.getLogger("darkroom.seed")

OWNER = "owner"
USER = "darkroom"
"""Who Prefect's and MLflow's pages ask for, beside a secret."""
STARTER = "starter"
STARTER_FOLDER = Path(__file__).parent / STARTER


def with_own_keys(settings: Settings) -> Settings:
    """The settings with every secret that the embedded platform works with: those given, or those of the data folder,
    each made there if it is missing."""
    given = _given_secrets(settings)
    for valkey_key in (settings.valkey_key_file, settings.valkey_darkroom_key_file):
        if not valkey_key.exists():
            write_secret(valkey_key, secrets.token_hex(32))
    for (group, field), file in settings.secret_files().items():
        if (group, field) not in given and not file.exists():
            secret = secrets.token_hex(32)
            write_secret(file, f"{USER}:{secret}" if field == "auth" else secret)
    changed: dict[str, Any] = {}
    for (group, field), own in settings.own_secrets().items():
        if (group, field) not in given:
            known = changed.get(group, getattr(settings, group))
            changed[group] = known.model_copy(update={field: SecretStr(own)})
    return settings.model_copy(update=changed)


def _given_secrets(settings: Settings) -> set[tuple[str, str]]:
    """The secrets that do not come from the data folder, by group and field.

    An URL of the embedded Valkey that was built before there was a password is the data folder's too.
    """
    without = settings.darkroom_valkey_url("")
    return {
        (group, field)
        for (group, field), own in settings.own_secrets().items()
        if getattr(getattr(settings, group), field).get_secret_value() not in ("", own, without)
    }


def ensure_owner(settings: Settings) -> None:
    """Make the owner's account, and a key with every scope in a file that only this user reads.

    A key in the file that the database does not know (its folder was removed) is replaced.
    """
    file = settings.owner_key_file
    with Database(settings.postgres) as database:
        if file.exists() and _is_known(database, file.read_text().strip()):
            return
        key = make_key()
        database.run(_owner_with(key))
    write_secret(file, key.text)


def ensure_search_index(settings: Settings) -> None:
    """Make the search index that there is not yet. While Elasticsearch is unavailable `reconcile` does it later."""
    with open_stores(settings) as stores:
        try:
            ensure_live_builds(stores)
        except StoreUnavailable as error:
            log.warning("no search index yet: %s", error)


def _is_known(database: Database, text: str) -> bool:
    parts = split_key(text)
    stored = database.run(accounts.key(parts[0])) if parts else None
    return stored is not None and parts is not None and stored.works(parts[1], datetime.now(UTC))


def _owner_with(key: NewKey) -> Generator[Query[Any], Any, None]:
    account = yield from accounts.ensure_account(OWNER, Role.MODERATOR)
    # Not make_key, which refuses once a hundred keys work: the platform could not start any more.
    yield from accounts.add_key(account.id, key, "made by the first darkroom up", list(Scope))


def ensure_starter(settings: Settings) -> None:
    """Register the starter model that comes with the project, or its new edition, as a base model."""
    if not (STARTER_FOLDER / "model_index.json").exists():
        return
    with open_stores(settings) as stores:
        register_folder(stores, shipped_folder(STARTER_FOLDER), STARTER, replace=True)
