"""Whether another platform uses the stores that a restore would write to."""

from __future__ import annotations

from storage.errors import BackupRefused
from storage.records.search.search import Kind
from storage.settings import Settings
from storage.stores import open_stores

_NEXT = (
    "Unset it for a drill, or name an empty one. Only where the platform that used it is gone for good, take it over: "
    "darkroom restore --take-over"
)


def refuse_stores_in_use(settings: Settings) -> None:
    """Refuse a blob store with blobs, and an Elasticsearch that searches of ours read.

    The restored platform would delete there, as unknown to it, what was made after the backup.
    Raises BackupRefused with the setting's name, StoreUnavailable.
    """
    with open_stores(settings) as stores:
        if next(stores.blobs.list(), None) is not None:
            raise BackupRefused(
                f"DARKROOM_BLOBS__URL names a blob store that is not empty: {settings.blobs.url}. {_NEXT}"
            )
        if not settings.search.elasticsearch_url.get_secret_value():
            return
        read = [kind.value for kind in Kind if stores.search.reading(kind) is not None]
    if read:
        raise BackupRefused(
            f"DARKROOM_SEARCH__ELASTICSEARCH_URL names a cluster where searches of {', '.join(read)} are read under "
            f"'{settings.search.index_prefix}' (DARKROOM_SEARCH__INDEX_PREFIX) already. {_NEXT}"
        )
