"""Signed links: good for one thing, one reader and a while, under the current key and the one before it."""

from __future__ import annotations

from urllib.parse import parse_qs

import msgspec
import pytest

from storage.records.policy.signed_links import Link, SigningKeys

KEYS = SigningKeys(current="secret")
LINK = Link(subject="file 12 a.safetensors", reader=3, expires=100)


def signature_of(link: Link, keys: SigningKeys = KEYS) -> str:
    [signature] = parse_qs(link.query(keys))["signature"]
    return signature


@pytest.mark.parametrize(
    "other", [{"subject": "file 13 a.safetensors"}, {"reader": 4}, {"reader": None}, {"expires": 101}]
)
def test_a_link_opens_what_it_says_to_whom_it_says_until_it_expires(other: dict[str, object]) -> None:
    signature = signature_of(LINK)
    assert LINK.is_signed(signature, KEYS, now=99)
    assert not LINK.is_signed(signature, KEYS, now=100)
    assert not msgspec.structs.replace(LINK, **other).is_signed(signature, KEYS, now=99)


def test_what_is_no_signature_of_ours_opens_nothing() -> None:
    signature = signature_of(LINK)
    for wrong in ("", "x", signature[:-2], signature + "00", "0" * 64):
        assert not LINK.is_signed(wrong, KEYS, now=99)
    for keys in (SigningKeys(current="other"), SigningKeys(current=""), SigningKeys(current="", previous="secret")):
        assert not LINK.is_signed(signature, keys, now=99)


def test_a_signature_of_the_previous_key_holds_until_that_is_put_away() -> None:
    old, both, new = KEYS, SigningKeys(current="new", previous="secret"), SigningKeys(current="new")
    assert LINK.is_signed(signature_of(LINK, old), both, now=99)
    assert signature_of(LINK, both) == signature_of(LINK, new) != signature_of(LINK, old)
    assert not LINK.is_signed(signature_of(LINK, old), new, now=99)
