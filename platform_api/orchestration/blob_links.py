"""Addresses of blobs: with a key by their id, without one by a signed token that ends."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
from itsdangerous import BadSignature

from platform_api.http.links import Addresses, link_expiry
from storage.errors import LinkRefused
from storage.records.jobs.jobs import JobFile
from storage.records.orchestration.blob_names import DrawnBlob, id_in_path
from storage.records.orchestration.rendering import Address
from storage.settings import ApiSettings
from storage.signing import TokenPurpose, read_token, write_token

BLOBS = "/v2/consumer/blobs"
CONTENT = f"{BLOBS}/content"
UPLOAD_SECONDS = 900
MAX_TOKEN = 2000
Opened = TypeVar("Opened", "BlobLink", "UploadLink")
# None was ever signed another way; the length says that nothing shorter is taken for one.
_BLOB, _UPLOAD = TokenPurpose(b"orchestration blob", 32), TokenPurpose(b"orchestration upload", 32)


class BlobLink(msgspec.Struct, frozen=True, kw_only=True):
    """What an address without a key opens: one blob of one account, under a name, until then (Unix seconds)."""

    account_id: UUID
    blob: str
    expires: int
    name: str = ""
    download: bool = False


class UploadLink(msgspec.Struct, frozen=True, kw_only=True):
    """Whose key an upload without it stands for, until then (Unix seconds)."""

    key_id: str
    expires: int


def blob_address(where: Addresses, link: BlobLink) -> str | None:
    """The address of a blob's bytes; None while there is no signing key."""
    keys = where.settings.signing_keys
    return f"{where.base}{CONTENT}/{write_token(link, _BLOB, keys)}" if keys else None


def read_blob_link(token: str, settings: ApiSettings) -> BlobLink:
    """What a token opens. Raises LinkRefused for one that is not ours or has expired."""
    return _read(token, BlobLink, _BLOB, settings)


def upload_address(where: Addresses, key_id: str) -> tuple[str, datetime]:
    """Where a browser may send a picture without a key, and until when. Raises LinkRefused without a signing key."""
    expires = int(time.time()) + UPLOAD_SECONDS
    if not where.settings.signing_keys:
        raise LinkRefused("There is no signing key, so no link can be made. Run darkroom up once.")
    token = write_token(UploadLink(key_id=key_id, expires=expires), _UPLOAD, where.settings.signing_keys)
    return f"{where.base}{BLOBS}?sig={token}", datetime.fromtimestamp(expires, UTC)


def read_upload_link(token: str, settings: ApiSettings) -> UploadLink:
    """Whose key a signature stands for. Raises LinkRefused."""
    return _read(token, UploadLink, _UPLOAD, settings)


def addressing(where: Addresses, account_id: UUID) -> Address:
    """Addresses of pictures that an account's workflows drew. They stay the same for a day."""
    expires = link_expiry(where.settings)

    def address(file: JobFile) -> tuple[str | None, datetime | None]:
        blob = DrawnBlob(job_id=file.job_id, name=file.name).id
        url = blob_address(where, BlobLink(account_id=account_id, blob=blob, expires=expires))
        return url, (None if url is None else datetime.fromtimestamp(expires, UTC))

    return address


def blob_in_address(url: str, settings: ApiSettings) -> str | None:
    """The id of the blob that an address of ours is of; None for any other address."""
    try:
        parts = urlsplit(url)
    except ValueError:  # such as brackets that hold no IPv6 address
        return None
    ours = {urlsplit(settings.public_url).netloc, *settings.allowed_hosts}
    if parts.scheme not in ("http", "https") or parts.netloc not in ours:
        return None
    if parts.path.startswith(f"{CONTENT}/"):
        return read_blob_link(parts.path.removeprefix(f"{CONTENT}/"), settings).blob
    return id_in_path(parts.path)


def _read(token: str, kind: type[Opened], purpose: TokenPurpose, settings: ApiSettings) -> Opened:
    keys = settings.signing_keys
    try:
        if not keys or len(token) > MAX_TOKEN:
            raise BadSignature("no token")
        link = read_token(token, kind, purpose, keys)
    except BadSignature as error:
        raise LinkRefused("The address is not signed by us, or not whole. Ask for the blob again.") from error
    if link.expires <= time.time():
        raise LinkRefused("The address has expired. POST /v2/consumer/blobs/{id}/refresh returns a new one.")
    return link
