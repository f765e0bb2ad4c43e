"""What MLflow's server reads from files before it starts."""

from __future__ import annotations

from storage.secret_files import write_secret
from storage.settings import Settings


def prepare_mlflow(settings: Settings, database_url: str) -> None:
    """The folder of artifacts, and the file that the server reads its first account from."""
    (settings.data_folder / "mlflow").mkdir(mode=0o700, exist_ok=True)
    settings.mlflow_accounts_file.parent.mkdir(mode=0o700, exist_ok=True)
    user, password = settings.mlflow.credentials or ("", "")
    values = {
        "default_permission": "NO_PERMISSIONS",
        "database_uri": database_url,
        "admin_username": user,
        "admin_password": password,
        # MLflow hashes the password with PBKDF2 for each request, tens of milliseconds, unless it may keep the outcome.
        "auth_cache_ttl_seconds": "60",
    }
    # MLflow reads the file with configparser, to which a single % begins a reference.
    lines = [f"{name} = {value.replace('%', '%%')}" for name, value in values.items()]
    write_secret(settings.mlflow_accounts_file, "\n".join(["[mlflow]", *lines]))
