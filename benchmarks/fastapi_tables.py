"""The catalogue's tables as SQLAlchemy maps them, for the benchmark's peer."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ForeignKey, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from sqlalchemy.types import Uuid


class Table(DeclarativeBase):
    """Every mapped class."""


class Account(Table):
    """A user."""

    __tablename__ = "accounts"
    id: Mapped[Any] = mapped_column(Uuid, primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    name: Mapped[str]
    image: Mapped[str | None]


class Tag(Table):
    """A tag."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    name: Mapped[str]


class ModelTag(Table):
    """Which model has which tag."""

    __tablename__ = "model_tags"
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    tag_id: Mapped[int] = mapped_column(ForeignKey("tags.id"), primary_key=True)


class ModelStats(Table):
    """Counts of a model."""

    __tablename__ = "model_stats"
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"), primary_key=True)
    download_count: Mapped[int]
    thumbs_up_count: Mapped[int]
    thumbs_down_count: Mapped[int]
    comment_count: Mapped[int]
    collected_count: Mapped[int]
    tipped_amount_count: Mapped[int]


class FileHash(Table):
    """One hash of a file."""

    __tablename__ = "file_hashes"
    file_id: Mapped[int] = mapped_column(ForeignKey("version_files.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(primary_key=True)
    hash: Mapped[str]


class File(Table):
    """A file of a version."""

    __tablename__ = "version_files"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    path: Mapped[str]
    role: Mapped[str]
    type: Mapped[str]
    format: Mapped[str]
    size: Mapped[int] = mapped_column(BigInteger)
    override_name: Mapped[str | None]
    created_at: Mapped[datetime]
    gone_at: Mapped[datetime | None]
    hashes: Mapped[list[FileHash]] = relationship()


class Image(Table):
    """An image of a version."""

    __tablename__ = "images"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"))
    sha256: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    blurhash: Mapped[str]
    nsfw_level: Mapped[int]
    position: Mapped[int]


class Version(Table):
    """A version of a model."""

    __tablename__ = "model_versions"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("models.id"))
    position: Mapped[int]
    name: Mapped[str]
    description: Mapped[str]
    base_model: Mapped[str]
    base_model_type: Mapped[str]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    status: Mapped[str]
    availability: Mapped[str]
    nsfw_level: Mapped[int]
    trained_words: Mapped[list[str]] = mapped_column(ARRAY(Text))
    gone_at: Mapped[datetime | None]
    files: Mapped[list[File]] = relationship(order_by=File.path)
    images: Mapped[list[Image]] = relationship(order_by=Image.position)


class Model(Table):
    """A model."""

    __tablename__ = "models"
    id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    account_id: Mapped[Any] = mapped_column(ForeignKey("accounts.id"))
    name: Mapped[str]
    description: Mapped[str]
    type: Mapped[str]
    nsfw: Mapped[bool]
    nsfw_level: Mapped[int]
    poi: Mapped[bool]
    minor: Mapped[bool]
    sfw_only: Mapped[bool]
    allow_no_credit: Mapped[bool]
    allow_commercial_use: Mapped[list[str]] = mapped_column(ARRAY(Text))
    allow_derivatives: Mapped[bool]
    allow_different_license: Mapped[bool]
    availability: Mapped[str]
    status: Mapped[str]
    checkpoint_type: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    published_at: Mapped[datetime | None]
    last_version_at: Mapped[datetime | None]
    visible: Mapped[bool]
    listed: Mapped[bool]
    account: Mapped[Account] = relationship()
    stats: Mapped[ModelStats | None] = relationship()
    versions: Mapped[list[Version]] = relationship(order_by=Version.position.desc())
    tags: Mapped[list[Tag]] = relationship(secondary=ModelTag.__table__, order_by=Tag.name)


class SortKey(Table):
    """Where a model stands in a list."""

    __tablename__ = "sort_keys"
    list: Mapped[str] = mapped_column(primary_key=True)
    k1: Mapped[int] = mapped_column(BigInteger)
    k2: Mapped[int] = mapped_column(BigInteger)
    item_id: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    replaced: Mapped[str | None] = mapped_column(Text)
