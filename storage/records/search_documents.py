"""Rows as search reads them, before they become what an engine keeps."""

from __future__ import annotations

from datetime import datetime

import msgspec


class ModelDocument(msgspec.Struct, frozen=True, kw_only=True):
    """A model as its row, its public versions and its counts say at one moment.

    levels: browsing level bits. published_at: of the newest public version. hashes: hex, of every public file.
    """

    id: int
    revision: int
    name: str
    creator: str
    type: str
    base_models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    trained_words: tuple[str, ...] = ()
    version_names: tuple[str, ...] = ()
    file_names: tuple[str, ...] = ()
    hashes: tuple[str, ...] = ()
    description: str = ""
    levels: int = 1
    published_at: datetime
    likes: int = 0
    downloads: int = 0
    comments: int = 0
    collected: int = 0
    pictures: int = 0
