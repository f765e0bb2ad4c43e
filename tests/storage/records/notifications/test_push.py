"""Push subscriptions: what cannot be a browser's keys or a push service is refused as it is typed."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from storage.errors import AddressRefused
from storage.records.notifications.push import PushKeys, read_endpoint, read_keys


def text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode()


def point(curve: ec.EllipticCurve) -> bytes:
    """A public key."""
    public = ec.generate_private_key(curve).public_key()
    return public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


AUTH = bytes(range(16))


def test_keys_are_read_with_and_without_their_padding():
    for _ in range(20):
        key = point(ec.SECP256R1())
        for written in (text(key), text(key).rstrip("=")):
            assert read_keys(PushKeys(p256dh=written, auth=text(AUTH))) == (key, AUTH)


@pytest.mark.parametrize(
    "key",
    [b"", b"\x04" + bytes(64), point(ec.SECP256K1()), b"\x04" + b"\xff" * 64, point(ec.SECP256R1())[:-1]],
    ids=["nothing", "no point", "another curve", "beyond the field", "too short"],
)
def test_what_is_no_point_of_the_curve_is_refused(key: bytes):
    with pytest.raises(AddressRefused, match="p256dh"):
        read_keys(PushKeys(p256dh=text(key), auth=text(AUTH)))


@pytest.mark.parametrize("auth", ["", "AAAA", "é", "!" * 22, text(bytes(17))])
def test_what_is_no_secret_is_refused(auth: str):
    with pytest.raises(AddressRefused, match="auth"):
        read_keys(PushKeys(p256dh=text(point(ec.SECP256R1())), auth=auth))


@pytest.mark.parametrize("url", ["http://push.example.com/", "https://10.0.0.1/", "https://[2606:4700::1111]/"])
def test_what_is_no_push_service_is_refused(url: str):
    with pytest.raises(AddressRefused):
        read_endpoint(url)
    assert read_endpoint("https://push.example.com/send/1").host == "push.example.com"
