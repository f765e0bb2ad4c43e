"""Settings of backups: DARKROOM_BACKUP__..."""

from __future__ import annotations

from pydantic import BaseModel, Field, SecretStr


class BackupSettings(BaseModel):
    """Where backups go, which ones are kept, and what their keys are sealed to."""

    destination: str = Field(default="", description="Folder or fsspec URL of the nightly backup; empty: none is made.")
    keep_last: int = Field(default=3, ge=1, description="The newest backups, so many of them, are always kept.")
    keep_days: int = Field(
        default=7, ge=0, description="Of the last so many days with backups the newest of each is kept."
    )
    keep_weeks: int = Field(
        default=4, ge=0, description="Of the last so many weeks with backups the newest of each is kept."
    )
    keep_months: int = Field(
        default=6, ge=0, description="Of the last so many months with backups the newest of each is kept."
    )
    late_after_days: float = Field(
        default=3.0, ge=0, description="Days without a new backup, once there was one, that raise an alert; 0: never."
    )
    key_file: str = Field(
        default="", description="What `darkroom backup key` makes; empty: backup.key in the data folder."
    )
    passphrase_file: str = Field(
        default="", description="File that holds the passphrase of the backups' key; empty: commands that need it ask."
    )
    postgres_programs: str = Field(
        default="",
        description="Folder with pg_dump, pg_restore and psql of the server's version or newer; empty: the wheel's.",
    )
    prefect_database: SecretStr = Field(
        default=SecretStr(""),
        description="psycopg URL of Prefect's database; empty: the embedded one, else it is left out.",
    )
    mlflow_database: SecretStr = Field(
        default=SecretStr(""),
        description="psycopg URL of MLflow's database; empty: the embedded one, else it is left out.",
    )
    mlflow_artifacts: str = Field(
        default="",
        description="fsspec URL of MLflow's artifacts; empty: those of the embedded one, else they are left out.",
    )
