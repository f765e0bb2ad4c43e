"""Addresses that people type, and which of them may be called: e-mail addresses and web addresses outside our network.

Pure. The text of an address is checked here when it is registered; what its name resolves to is checked here each time
it is called (`is_public`), on the very address that is connected to.
"""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

import msgspec

from storage.errors import AddressRefused

MAX_LENGTH = 1000
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?=[a-z])(?:{_LABEL})")
_LOCAL_PART = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*")
_INSIDE = ("localhost", "local", "internal", "intranet", "lan", "home", "corp", "test", "invalid", "arpa", "onion")
"""Last labels of names that mean something only within a network."""
_NOT_FOR_US = tuple(
    ipaddress.ip_network(text)
    for text in (
        "168.63.129.16/32",  # the platform service of one cloud, at an address that looks public
        "192.0.0.0/24",  # protocol assignments, which Python 3.11 takes for public in part
        "192.88.99.0/24",  # relays of 6to4
        "2001::/23",  # protocol assignments, Teredo among them
        "2002::/16",  # 6to4: IPv4 addresses in IPv6 clothes
        "3fff::/20",  # documentation
    )
)
_UNICAST = ipaddress.ip_network("2000::/3")
"""All that is routed in IPv6. IPv4 addresses in other clothes (::ffff:0:0/96, 64:ff9b::/96) lie outside."""


class WebAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An https address that may be tried: `host` is a name or an IP address, `target` the path with the query."""

    url: str
    host: str
    port: int
    target: str

    @property
    def shown(self) -> str:
        """What may be shown of it: services put secrets into paths and queries."""
        port = "" if self.port == 443 else f":{self.port}"
        return f"https://{self.host if ':' not in self.host else f'[{self.host}]'}{port}/…"


def read_web_address(text: str) -> WebAddress:
    """An address as somebody typed it. Raises AddressRefused for all but plain https addresses of public hosts."""
    if not text.isascii() or any(character <= " " or character in "\\\x7f" for character in text):
        raise AddressRefused("must be plain ASCII without blanks; write other letters of a name as xn--...")
    if len(text) > MAX_LENGTH:
        raise AddressRefused(f"must have at most {MAX_LENGTH} characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise AddressRefused("is no address: its host or port cannot be read") from error
    if parts.scheme != "https":
        raise AddressRefused("must begin with https://")
    if "@" in parts.netloc:
        raise AddressRefused("must not hold a user name or password")
    if parts.fragment or "#" in text:
        raise AddressRefused("must not hold a #fragment, which is never sent")
    if port is not None and port != 443 and port < 1024:
        raise AddressRefused("must use port 443, or one of 1024 and above")
    host = (parts.hostname or "").lower()
    _check_host(host)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return WebAddress(url=text, host=host, port=port or 443, target=target)


def _check_host(host: str) -> None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # Numbers that are no IP address in its one plain form are read as one by some resolvers, so they are no name.
        if not _NAME.fullmatch(host):
            raise AddressRefused("must name a host of the internet, for example hooks.example.com") from None
        if host.rsplit(".", 1)[1] in _INSIDE:
            raise AddressRefused("names a host inside a network, not of the internet") from None
        return
    if str(address) != host or not is_public(host):
        raise AddressRefused("is not an address of the internet")


def is_public(address: str) -> bool:
    """Whether an IP address is one of the internet, and not one that leads inside by another name."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and (found.scope_id is not None or found not in _UNICAST):
        return False
    if any(found in network for network in _NOT_FOR_US if network.version == found.version):
        return False
    return found.is_global and not (found.is_multicast or found.is_reserved or found.is_unspecified)


def read_email_address(text: str) -> str:
    """An e-mail address as somebody typed it, with its domain in lower case. Raises AddressRefused."""
    local, _, domain = text.rpartition("@")
    domain = domain.lower()
    if len(text) > 254 or len(local) > 64 or not _LOCAL_PART.fullmatch(local) or not _NAME.fullmatch(domain):
        raise AddressRefused("must be an e-mail address, for example ann@example.com")
    return f"{local}@{domain}"


def shown_email_address(address: str) -> str:
    """What may be shown of an e-mail address to whoever has a key of its owner."""
    local, _, domain = address.rpartition("@")
    return f"{local[0]}…@{domain}"
