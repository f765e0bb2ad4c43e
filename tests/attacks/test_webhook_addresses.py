"""No address that somebody types leads inside: refused as it is typed, or when its name resolves, before any socket."""

from __future__ import annotations

import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from flows.notifications.channels.transport import MAX_BYTES, CallFailed
from storage.errors import AddressRefused
from storage.records.notifications.addresses import is_public, read_email_address, read_web_address
from tests.flows.notifications.internet import PUBLIC, Internet, Receiver, receiving

NAME = "hooks.example.com"

REFUSED_AS_TYPED = [
    "http://hooks.example.com/",
    "ftp://hooks.example.com/",
    "file:///etc/passwd",
    "gopher://hooks.example.com/",
    "//hooks.example.com/",
    "hooks.example.com/path",
    "https://",
    "https:///path",
    "https://localhost/",
    "https://localhost./",
    "https://LOCALHOST/",
    "https://db.localhost/",
    "https://postgres/",
    "https://postgres.internal/",
    "https://metadata.google.internal/",
    "https://printer.local/",
    "https://router.lan/",
    "https://1.168.192.in-addr.arpa/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://0/",
    "https://0.0.0.0/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://017700000001/",
    "https://127.0.0.1./",
    "https://10.0.0.8/",
    "https://172.16.0.1/",
    "https://192.168.1.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://100.64.0.1/",
    "https://100.100.100.200/",
    "https://168.63.129.16/",
    "https://192.0.0.192/",
    "https://192.88.99.1/",
    "https://198.18.0.1/",
    "https://224.0.0.1/",
    "https://240.0.0.1/",
    "https://255.255.255.255/",
    "https://[::]/",
    "https://[::1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:169.254.169.254]/",
    "https://[::ffff:93.184.215.14]/",
    "https://[::127.0.0.1]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[64:ff9b::5db8:d70e]/",
    "https://[2002:7f00:1::]/",
    "https://[2001:0:7f00:1::]/",
    "https://[fe80::1]/",
    "https://[fe80::1%25eth0]/",
    "https://[2606:4700::1111%25eth0]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[fec0::1]/",
    "https://[ff02::1]/",
    "https://user@hooks.example.com/",
    "https://user:password@hooks.example.com/",
    "https://hooks.example.com@127.0.0.1/",
    "https://hooks.example.com\\@127.0.0.1/",
    "https://127.0.0.1#@hooks.example.com/",
    "https://hooks.example.com/#fragment",
    "https://hooks。example。com/",
    "https://１２７.0.0.1/",
    "https://ⓛocalhost/",
    "https://hooks.example.com:22/",
    "https://hooks.example.com:25/",
    "https://hooks.example.com:99999/",
    "https://hooks.example.com:x/",
    "https://hooks.example.com/a b",
    "https://hooks.example.com/a\r\nHost: inside",
    "https://hooks.example.com\x00/",
    "https://-hooks.example.com/",
    "https://hooks..example.com/",
    "https://hooks.example.com./",
    "https://" + "a" * 64 + ".example.com/",
    "https://hooks.example.com/" + "x" * 1000,
]

INSIDE = [
    "127.0.0.1",
    "0.0.0.0",
    "10.1.2.3",
    "172.31.0.1",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "::ffff:10.0.0.1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "64:ff9b::a00:1",
    "2002:a00:1::",
    "not an address",
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Internet, Receiver]]:
    with receiving(tmp_path_factory.mktemp("internet"), NAME) as found:
        yield found


@pytest.mark.parametrize("url", REFUSED_AS_TYPED)
def test_an_address_that_is_not_of_the_internet_is_refused_as_it_is_typed(url: str):
    with pytest.raises(AddressRefused):
        read_web_address(url)


def test_plain_addresses_of_the_internet_are_taken():
    for url, host, port, target in [
        ("https://hooks.example.com", NAME, 443, "/"),
        ("https://Hooks.Example.com/a?b=c", NAME, 443, "/a?b=c"),
        ("https://hooks.example.com:8443/a", NAME, 8443, "/a"),
        ("https://93.184.215.14/", "93.184.215.14", 443, "/"),
        ("https://[2606:4700::1111]/", "2606:4700::1111", 443, "/"),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, "/"),
    ]:
        found = read_web_address(url)
        assert (found.host, found.port, found.target) == (host, port, target)
        assert found.shown.endswith("/…")


@pytest.mark.parametrize("address", INSIDE)
def test_a_name_that_leads_inside_is_refused_before_any_socket(net: tuple[Internet, Receiver], address: str):
    internet, _ = net
    assert not is_public(address)
    for resolved in ([address], [PUBLIC, address]):
        internet.names["rebound.example.com"] = resolved
        before = len(internet.connections)
        with pytest.raises(AddressRefused):
            internet.transport().post(read_web_address("https://rebound.example.com/"), b"{}", {})
        assert len(internet.connections) == before


def test_a_name_is_resolved_once_so_a_second_resolution_changes_nothing(net: tuple[Internet, Receiver]):
    internet, receiver = net
    resolved = iter([[PUBLIC], ["127.0.0.1"]])
    transport = internet.transport()
    asked: list[str] = []

    def turning(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(resolved)

    rebinding = type(transport)(transport.seconds, resolve=turning, connect=transport.connect, trust=transport.trust)
    receiver.response = 200
    assert rebinding.post(read_web_address(f"https://{NAME}/x"), b"{}", {}).status == 200
    assert asked == [NAME]
    assert internet.connections[-1] == (PUBLIC, 443)
    assert receiver.calls[-1].headers["host"] == NAME
    with pytest.raises(AddressRefused):
        rebinding.post(read_web_address(f"https://{NAME}/x"), b"{}", {})


def test_a_redirect_is_a_response_and_is_not_followed(net: tuple[Internet, Receiver]):
    internet, receiver = net

    def redirect(request: BaseHTTPRequestHandler) -> None:
        request.send_response(307)
        request.send_header("Location", "http://169.254.169.254/latest/meta-data/")
        request.send_header("Content-Length", "0")
        request.end_headers()

    receiver.response = redirect
    before = len(internet.connections)
    assert internet.transport().post(read_web_address(f"https://{NAME}/"), b"{}", {}).status == 307
    assert len(internet.connections) == before + 1


def test_a_certificate_of_another_name_is_not_trusted(net: tuple[Internet, Receiver]):
    internet, receiver = net
    internet.names["other.example.com"] = [PUBLIC]
    calls = len(receiver.calls)
    with pytest.raises(CallFailed, match="CERTIFICATE_VERIFY_FAILED"):
        internet.transport().post(read_web_address("https://other.example.com/"), b"{}", {})
    assert len(receiver.calls) == calls


def test_a_response_that_drips_or_never_ends_costs_a_bounded_time_and_size(net: tuple[Internet, Receiver]):
    internet, receiver = net

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        for _ in range(200):
            request.wfile.write(b"x")
            request.wfile.flush()
            time.sleep(0.05)

    def flood(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            request.wfile.write(b"x" * 65536)

    receiver.response = drip
    with pytest.raises(CallFailed, match="took more than"):
        internet.transport(seconds=0.4).post(read_web_address(f"https://{NAME}/"), b"{}", {})
    receiver.response = flood
    assert len(internet.transport().post(read_web_address(f"https://{NAME}/"), b"{}", {}).body) == MAX_BYTES


@pytest.mark.parametrize(
    "text",
    [
        *("", "ann", "ann@", "@example.com", "ann@localhost", "ann@127.0.0.1", "ann@[10.0.0.1]", "a b@example.com"),
        "ann@example.com\r\nBcc: x@y.com",
        "ann@example.com,bob@example.com",
        "ann@exämple.com",
        "a" * 65 + "@example.com",
    ],
)
def test_what_is_no_email_address_is_refused(text: str):
    with pytest.raises(AddressRefused):
        read_email_address(text)


def test_email_addresses_are_taken_as_people_write_them():
    assert read_email_address("Ann.B+tag@Example.COM") == "Ann.B+tag@example.com"
