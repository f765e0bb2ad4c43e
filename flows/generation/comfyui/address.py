"""Where a ComfyUI is, and what it wants to be shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from pydantic import SecretStr

from storage.errors import InvalidSettings


@dataclass(frozen=True, kw_only=True)
class ComfyAddress:
    """The base URL, and a header for each request that a proxy in front of it may ask for.

    Raises InvalidSettings for a URL that is not http or https, or that holds a secret: URLs are logged.
    """

    url: str
    header: str = "Authorization"
    secret: SecretStr = field(default=SecretStr(""))

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidSettings("ComfyUI's URL must begin with http:// or https:// and name a host.")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise InvalidSettings(
                "ComfyUI's URL must hold no user, password or query: put a secret into the header's setting."
            )

    @property
    def base(self) -> str:
        """The URL without a slash at its end."""
        return self.url.rstrip("/")

    @property
    def socket(self) -> str:
        """The URL of its socket."""
        return "ws" + self.base.removeprefix("http") + "/ws"

    @property
    def headers(self) -> dict[str, str]:
        """What goes with each request; never logged."""
        secret = self.secret.get_secret_value()
        return {self.header: secret} if secret else {}
