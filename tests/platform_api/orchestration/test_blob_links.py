"""Addresses without a key open one thing until they end, and nothing else is taken for one."""

from __future__ import annotations

import base64
import time
from uuid import UUID

import msgspec
import pytest
from pydantic import SecretStr

from platform_api.http.links import Addresses
from platform_api.orchestration.blob_links import (
    BlobLink,
    blob_address,
    blob_in_address,
    read_blob_link,
    read_upload_link,
    upload_address,
)
from storage.errors import LinkRefused
from storage.settings import ApiSettings

SETTINGS = ApiSettings(
    signing_key=SecretStr("a key"), public_url="https://draw.example.com", allowed_hosts=["other.example.com"]
)
WHERE = Addresses(SETTINGS.public_url, SETTINGS)
BLOB = "f" * 64


def link(seconds: int = 60) -> BlobLink:
    return BlobLink(account_id=UUID(int=7), blob=BLOB, expires=int(time.time()) + seconds)


def token_of(url: str | None) -> str:
    assert url is not None
    return url.rpartition("/")[2]


def test_an_address_says_what_it_opens() -> None:
    url = blob_address(WHERE, link())
    assert read_blob_link(token_of(url), SETTINGS).blob == BLOB
    assert blob_in_address(str(url), SETTINGS) == BLOB
    assert blob_in_address(f"http://other.example.com/v2/consumer/blobs/{BLOB}?download=true", SETTINGS) == BLOB


@pytest.mark.parametrize(
    "url",
    [
        f"https://evil.example.com/v2/consumer/blobs/{BLOB}",
        f"https://draw.example.com@evil.example.com/v2/consumer/blobs/{BLOB}",
        f"ftp://draw.example.com/v2/consumer/blobs/{BLOB}",
        "https://draw.example.com/api/v1/models",
        "https://draw.example.com/v2/consumer/blobs/a/b",
        "http://[::1/x",
    ],
)
def test_other_addresses_are_of_no_blob(url: str) -> None:
    assert blob_in_address(url, SETTINGS) is None


def test_what_has_expired_opens_nothing() -> None:
    with pytest.raises(LinkRefused, match="has expired"):
        read_blob_link(token_of(blob_address(WHERE, link(-1))), SETTINGS)


def test_a_token_of_another_purpose_opens_nothing() -> None:
    signed, _ = upload_address(WHERE, "abc")
    upload = signed.partition("sig=")[2]
    assert read_upload_link(upload, SETTINGS).key_id == "abc"
    with pytest.raises(LinkRefused, match="not signed by us"):
        read_blob_link(upload, SETTINGS)
    with pytest.raises(LinkRefused, match="not signed by us"):
        read_upload_link(token_of(blob_address(WHERE, link())), SETTINGS)


@pytest.mark.parametrize("signature", [b"", b"\0" * 32])
def test_a_content_without_our_signature_opens_nothing(signature: bytes) -> None:
    # Also in the form that tokens had before: a signature, then the content, in one piece of Base64.
    content = msgspec.msgpack.encode(link())
    forged = base64.urlsafe_b64encode(signature + content).decode().rstrip("=")
    for token in (forged, f"{forged}.", f"{forged}.AAAA", "", "x" * 3000):
        with pytest.raises(LinkRefused, match="not signed by us"):
            read_blob_link(token, SETTINGS)


def test_without_a_signing_key_there_is_no_address() -> None:
    bare = ApiSettings(public_url="https://draw.example.com")
    assert blob_address(Addresses(bare.public_url, bare), link()) is None
    with pytest.raises(LinkRefused, match="no signing key"):
        upload_address(Addresses(bare.public_url, bare), "abc")
