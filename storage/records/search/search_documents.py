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


class ImageDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An image as its row, its version, its model and its counts say at one moment.

    prompt: what it was drawn from; details: what else is known of how. level: a browsing level bit.
    """

    id: int
    revision: int
    prompt: str = ""
    details: tuple[str, ...] = ()
    model_name: str
    version_name: str = ""
    creator: str
    type: str
    base_model: str
    tags: tuple[str, ...] = ()
    sha256: str
    level: int = 1
    width: int
    height: int
    created_at: datetime
    reactions: int = 0
    comments: int = 0
    collected: int = 0


class CreatorDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An account as its row and its listed models say at one moment.

    id: the account's number. levels: browsing level bits of the models. published_at: of the newest version.
    """

    id: int
    revision: int
    name: str
    types: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    levels: int = 1
    models: int
    published_at: datetime
