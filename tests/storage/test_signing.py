"""What we sign: links for one thing, one reader and a while; tokens for one purpose; under the current key and the one
before it; and what was signed before itsdangerous did it."""

from __future__ import annotations

from urllib.parse import parse_qs
from uuid import UUID

import msgspec
import pytest
from itsdangerous import BadSignature

from storage.errors import LinkRefused
from storage.records.catalog.listing import Cursor, ListPlace
from storage.records.notifications.notification_links import Confirm, Unsubscribe
from storage.records.policy.signed_links import Link, SigningKeys, image_subject
from storage.signing import (
    CURSOR,
    is_signed,
    job_image_link,
    link_query,
    read_email_link,
    read_token,
    write_email_link,
    write_token,
)

KEYS = SigningKeys(current="secret")
LINK = Link(subject="file 12 a.safetensors", reader=3, expires=100)


def signature_of(link: Link, keys: SigningKeys = KEYS) -> str:
    [signature] = parse_qs(link_query(link, keys))["signature"]
    return signature


@pytest.mark.parametrize(
    "other", [{"subject": "file 13 a.safetensors"}, {"reader": 4}, {"reader": None}, {"expires": 101}]
)
def test_a_link_opens_what_it_says_to_whom_it_says_until_it_expires(other: dict[str, object]) -> None:
    signature = signature_of(LINK)
    assert is_signed(LINK, signature, KEYS, now=99)
    assert not is_signed(LINK, signature, KEYS, now=100)
    assert not is_signed(msgspec.structs.replace(LINK, **other), signature, KEYS, now=99)


def test_what_is_no_signature_of_ours_opens_nothing() -> None:
    signature = signature_of(LINK)
    for wrong in ("", "x", signature[:-2], signature + "00", "0" * 64):
        assert not is_signed(LINK, wrong, KEYS, now=99)
    for keys in (SigningKeys(current="other"), SigningKeys(current=""), SigningKeys(current="", previous="secret")):
        assert not is_signed(LINK, signature, keys, now=99)


def test_a_signature_of_the_previous_key_holds_until_that_is_put_unavailable() -> None:
    old, both, new = KEYS, SigningKeys(current="new", previous="secret"), SigningKeys(current="new")
    assert is_signed(LINK, signature_of(LINK, old), both, now=99)
    assert signature_of(LINK, both) == signature_of(LINK, new) != signature_of(LINK, old)
    assert not is_signed(LINK, signature_of(LINK, old), new, now=99)


UNSUBSCRIBE = Unsubscribe(reader=42, types=("job_failed", "system"))
CONFIRM = Confirm(endpoint_id=UUID("0b7cf1f0-2f6e-4e0e-9a55-6d2c3cf0a6a1"))
WHERE = Cursor("models", "e1", "10:20:", 1_700_000_000, ListPlace(5, 6, 7))

# What our own code wrote under OLD_KEY before itsdangerous signed. These lie in mailboxes: never change them.
OLD_KEY = SigningKeys(current="a key of the old days")
OLD_UNSUBSCRIBE = "I5e7Tk8ZSe1Rg73Edu3j0IOkdHlwZat1bnN1YnNjcmliZaZyZWFkZXIqpXR5cGVzkqpqb2JfZmFpbGVkpnN5c3RlbQ"
OLD_CONFIRM = (
    "37ipFHA3W2rES4ZDJ-ju-4KkdHlwZadjb25maXJtq2VuZHBvaW50X2lk2SQwYjdjZjFmMC0yZjZlLTRlMGUtOWE1NS02ZDJjM2NmMGE2YTE"
)
OLD_CURSOR = "gk1kJlK2cYP1laZtb2RlbHOiZTGmMTA6MjA6zmVT8QCTBQYH"
OLD_IMAGE = Link(subject=image_subject(7, "ab" * 32), reader=3, expires=100)
OLD_IMAGE_SIGNATURE = "f3f750cb9276a9b63dbff7e535f8b1e92f465dadd4f56c37bbe1f49f30c273fa"


def test_a_token_says_what_was_written_and_is_safe_in_an_address() -> None:
    token = write_email_link(UNSUBSCRIBE, KEYS)
    assert read_email_link(token, Unsubscribe, KEYS) == UNSUBSCRIBE
    assert read_token(write_token(WHERE, CURSOR, KEYS), Cursor, CURSOR, KEYS) == WHERE
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_a_token_of_another_key_kind_or_purpose_or_one_that_is_cut_is_refused() -> None:
    token = write_email_link(UNSUBSCRIBE, KEYS)
    for wrong in ("", ".", "x", "é", "A" * 40, token[1:], token[:-2], token.replace(".", ""), token + ".x"):
        with pytest.raises(LinkRefused, match="Copy all of it"):
            read_email_link(wrong, Unsubscribe, KEYS)
    with pytest.raises(LinkRefused):
        read_email_link(token, Confirm, KEYS)
    with pytest.raises(LinkRefused):
        read_email_link(token, Unsubscribe, SigningKeys(current="other"))
    with pytest.raises(BadSignature):
        read_token(token, Unsubscribe, CURSOR, KEYS)
    with pytest.raises(LinkRefused, match="no signing key"):
        write_email_link(UNSUBSCRIBE, SigningKeys(current=""))


def test_a_token_of_the_previous_key_is_read_and_the_current_key_signs() -> None:
    both = SigningKeys(current="new", previous="secret")
    assert read_email_link(write_email_link(UNSUBSCRIBE, KEYS), Unsubscribe, both) == UNSUBSCRIBE
    assert write_email_link(UNSUBSCRIBE, both) == write_email_link(UNSUBSCRIBE, SigningKeys(current="new"))


@pytest.mark.parametrize("keys", [OLD_KEY, SigningKeys(current="new", previous=OLD_KEY.current)])
def test_what_was_signed_before_itsdangerous_is_still_read(keys: SigningKeys) -> None:
    assert read_email_link(OLD_UNSUBSCRIBE, Unsubscribe, keys) == UNSUBSCRIBE
    assert read_email_link(OLD_CONFIRM, Confirm, keys) == CONFIRM
    assert read_token(OLD_CURSOR, Cursor, CURSOR, keys) == WHERE
    assert is_signed(OLD_IMAGE, OLD_IMAGE_SIGNATURE, keys, now=99)


def test_what_was_signed_before_is_refused_under_another_key_or_changed() -> None:
    for token in (OLD_UNSUBSCRIBE[:-4], "B" + OLD_UNSUBSCRIBE[1:], OLD_CONFIRM, OLD_CURSOR):
        with pytest.raises(LinkRefused):
            read_email_link(token, Unsubscribe, OLD_KEY)
    with pytest.raises(LinkRefused):
        read_email_link(OLD_UNSUBSCRIBE, Unsubscribe, KEYS)
    assert not is_signed(OLD_IMAGE, OLD_IMAGE_SIGNATURE, OLD_KEY, now=100)
    assert not is_signed(OLD_IMAGE, OLD_IMAGE_SIGNATURE, KEYS, now=99)
    assert not is_signed(OLD_IMAGE, "z" * 64, OLD_KEY, now=99)
    assert not is_signed(msgspec.structs.replace(OLD_IMAGE, reader=4), OLD_IMAGE_SIGNATURE, OLD_KEY, now=99)


def test_an_address_of_a_jobs_image_stays_the_same() -> None:
    job = CONFIRM.endpoint_id
    link = job_image_link(job, "ab" * 32, 100, KEYS)
    assert link == job_image_link(job, "ab" * 32, 100, KEYS)
    assert link.startswith(f"/api/v1/images/{'ab' * 32}?job={job}&expires=100&signature=")
