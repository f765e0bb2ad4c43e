"""Where the data folder keeps what one needs to speak with the embedded servers. Every file here has mode 0600."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

VALKEY_USER = "darkroom"
VALKEY_DATABASE = 2
"""Prefect's server has databases 0 and 1, and runs what it finds in a queue there: nobody else may write to them."""


def text_of(file: Path) -> str:
    """What a secret's file holds; nothing where there is none."""
    return file.read_text().strip() if file.exists() else ""


class EmbeddedServers:
    """The part of the settings that follows from the data folder."""

    data_folder: Path

    @property
    def prefect_auth_file(self) -> Path:
        """What the embedded Prefect asks for, as user:secret."""
        return self.data_folder / "prefect.auth"

    @property
    def mlflow_auth_file(self) -> Path:
        """What the embedded MLflow asks for, as user:secret."""
        return self.data_folder / "mlflow.auth"

    @property
    def mlflow_accounts_file(self) -> Path:
        """What the embedded MLflow reads its first account and its database from."""
        return self.data_folder / "run" / "mlflow-accounts.ini"

    @property
    def valkey_key_file(self) -> Path:
        """The password of the embedded Valkey's default account, which Prefect's server uses."""
        return self.data_folder / "valkey.key"

    @property
    def valkey_darkroom_key_file(self) -> Path:
        """The password of the account that may use Darkroom's database of the embedded Valkey, and no other."""
        return self.data_folder / "valkey-darkroom.key"

    @property
    def valkey_socket(self) -> Path:
        """Where the embedded Valkey listens; its folder is closed to others."""
        return self.data_folder / "valkey" / "valkey.sock"

    @property
    def engine_socket(self) -> Path:
        """Where the engine that draws images listens; its folder is closed to others."""
        return self.data_folder / "engine" / "engine.sock"

    def prefect_valkey_url(self, database: int) -> str:
        """URL of one of Prefect's numbered databases of the embedded Valkey."""
        return self._valkey_url(f":{text_of(self.valkey_key_file)}", database)

    @property
    def embedded_valkey_url(self) -> str:
        """URL of Darkroom's database of the embedded Valkey."""
        return self.darkroom_valkey_url(text_of(self.valkey_darkroom_key_file))

    def darkroom_valkey_url(self, secret: str) -> str:
        """The same with a password that need not be the one of the file."""
        return self._valkey_url(f"{VALKEY_USER}:{secret}", VALKEY_DATABASE)

    def _valkey_url(self, login: str, database: int) -> str:
        # Percent-encoded, because the path stands in a URL and a data folder may have any name.
        return f"unix://{login}@{quote(str(self.valkey_socket))}?db={database}"
