"""Where the data folder keeps what one needs to speak with the embedded servers. Every file here has mode 0600."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote


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
        """The password of the embedded Valkey."""
        return self.data_folder / "valkey.key"

    @property
    def valkey_socket(self) -> Path:
        """Where the embedded Valkey listens; its folder is closed to others."""
        return self.data_folder / "valkey" / "valkey.sock"

    def embedded_valkey_url(self, database: int) -> str:
        """URL of one numbered database of the embedded Valkey."""
        return self.valkey_url_with(text_of(self.valkey_key_file), database)

    def valkey_url_with(self, secret: str, database: int) -> str:
        """The same with a password that need not be the one of the file."""
        return f"unix://:{secret}@{quote(str(self.valkey_socket))}?db={database}"
