"""The key that push services know us by: the same as long as the sealing key is, and another for another."""

from __future__ import annotations

import base64

import pytest
from pydantic import SecretStr

from storage.errors import SealBroken
from storage.push_key import public_push_key
from storage.settings import NotificationSettings


def public(sealing_key: str) -> str:
    return public_push_key(NotificationSettings(sealing_key=SecretStr(sealing_key)))


def test_the_key_stays_with_the_sealing_key():
    assert public("one") == public("one") != public("another")
    point = base64.urlsafe_b64decode(public("one") + "=")
    assert (len(point), point[0]) == (65, 4)


def test_without_a_sealing_key_there_is_none():
    with pytest.raises(SealBroken, match="darkroom up"):
        public("")
