"""Every setting of Darkroom, grouped, each with its default and its reason.

A setting is read from the environment as DARKROOM_<GROUP>__<FIELD> (for example DARKROOM_API__PORT=8080).
URLs that are not given point at the parts that `darkroom up` runs in the data folder on this machine.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from storage.backup_settings import BackupSettings
from storage.comfyui_settings import ComfyuiSettings
from storage.embedded_servers import EmbeddedServers, text_of
from storage.errors import InvalidSettings
from storage.orchestration_settings import OrchestrationSettings
from storage.records.accounts.quotas import GIB, MIB, Limits
from storage.records.policy.signed_links import SigningKeys
from storage.setting_names import unknown_names
from storage.tracking_settings import TrackingSettings

MAX_BYTES = 2**63 - 1
"""What a column of Postgres holds."""


class PostgresSettings(BaseModel):
    """Darkroom's database, which holds the truth."""

    url: SecretStr = Field(
        default=SecretStr(""), description="psycopg URL of Darkroom's database; empty: the embedded one."
    )
    pool_size: int = Field(default=8, ge=1, description="Connections one process may hold.")
    statement_timeout_seconds: float = Field(
        default=30.0, gt=0, description="A statement that takes longer is cancelled."
    )
    lock_timeout_seconds: float = Field(
        default=5.0, gt=0, description="A statement that waits longer for a lock fails."
    )


class RedisSettings(BaseModel):
    """Progress ticks, politeness limits, models ready to send. All of it may vanish."""

    url: SecretStr = Field(default=SecretStr(""), description="redis:// or unix:// URL; empty: the embedded Valkey.")


class BlobSettings(BaseModel):
    """Bytes named by their SHA-256."""

    url: str = Field(
        default="", description="fsspec URL of the folder (file:///..., s3://bucket/prefix); empty: DATA/blobs."
    )
    orphan_grace_hours: float = Field(
        default=24.0, ge=1, description="Bytes no row names are swept after this many hours."
    )


class PrefectSettings(BaseModel):
    """The orchestrator of all flows."""

    api_url: str = Field(default="", description="Prefect API; empty: the embedded server.")
    ui_url: str = Field(default="", description="Address of Prefect's pages for links; empty: the embedded server.")
    port: int = Field(default=4200, ge=1, le=65535, description="Port of the embedded Prefect server.")
    auth: SecretStr = Field(
        default=SecretStr(""),
        description="user:secret that Prefect's API and pages ask for; empty: the data folder's own.",
    )

    @property
    def embedded_api_url(self) -> str:
        """The API of the server that `darkroom up` runs."""
        return f"http://127.0.0.1:{self.port}/api"


class MlflowSettings(BaseModel):
    """Tracking runs and the model registry."""

    url: str = Field(default="", description="MLflow tracking server; empty: the embedded server.")
    ui_url: str = Field(default="", description="Address of MLflow's pages for links; empty: the server's.")
    port: int = Field(default=5000, ge=1, le=65535, description="Port of the embedded MLflow server.")
    auth: SecretStr = Field(
        default=SecretStr(""), description="user:secret that MLflow asks for; empty: the data folder's own."
    )

    @property
    def embedded_url(self) -> str:
        """The server that `darkroom up` runs."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """Where the paths of its REST interface begin."""
        return f"{self.url}/api/2.0/mlflow/"

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password; None where nobody is asked for them."""
        user, _, password = self.auth.get_secret_value().partition(":")
        return (user, password) if password else None


class ApiSettings(BaseModel):
    """The HTTP API."""

    host: str = Field(default="127.0.0.1", description="Address the API listens on.")
    port: int = Field(default=8000, ge=1, le=65535, description="Port the API listens on.")
    public_url: str = Field(default="", description="Address clients use, for links; empty: http://HOST:PORT.")
    allowed_hosts: list[str] = Field(
        default_factory=list, description="Other Host headers that links may be built from, as a JSON list."
    )
    trusted_proxies: list[str] = Field(
        default_factory=list,
        description="Addresses or networks of proxies whose X-Forwarded-For and -Proto are believed, as a JSON list.",
    )
    key: SecretStr = Field(
        default=SecretStr(""),
        description="API key that the command line sends; empty: the owner's, in the data folder.",
    )
    signing_key: SecretStr = Field(
        default=SecretStr(""), description="Signs image links; empty: the data folder's own key."
    )
    previous_signing_key: SecretStr = Field(
        default=SecretStr(""),
        description="The signing key before it: what it signed still works; empty: the data folder's.",
    )
    link_lifetime_seconds: int = Field(default=7 * 86400, ge=60, description="How long a signed image link works.")
    download_link_seconds: int = Field(
        default=3600, ge=60, description="How long the address that a download leads to works."
    )
    idempotency_hours: int = Field(default=24, ge=24, description="How long an Idempotency-Key is kept.")
    max_streams: int = Field(default=4000, ge=1, description="Event streams that one process keeps open at once.")
    max_streams_per_account: int = Field(default=50, ge=1, description="Of these, streams of one account.")
    blob_threads: int = Field(
        default=8,
        ge=1,
        description="Threads of one process that read bytes of downloads, and as many that write uploads.",
    )

    @property
    def signing_keys(self) -> SigningKeys:
        """What signs links and cursors, and what is still taken for signed."""
        keys = self.signing_key.get_secret_value(), self.previous_signing_key.get_secret_value()
        return SigningKeys(current=keys[0], previous=keys[1])


class CacheSettings(BaseModel):
    """What is kept so that it need not be built again. It never decides what is shown: Postgres is asked each time."""

    enabled: bool = Field(
        default=True, description="Responses are kept in the API's memory, models ready to send in Valkey."
    )
    memory_mib: int = Field(
        default=64, ge=1, description="MiB of cached responses, and as much of models, in one process."
    )
    model_seconds: int = Field(default=600, ge=1, description="How long Valkey keeps a model that nobody asks for.")


class LimitSettings(BaseModel):
    """How often one account, or one address that sends no key, may ask. All at once or spread; 0: as often as it likes.

    While Valkey is unavailable nobody is limited.
    """

    reads: int = Field(
        default=6000, ge=0, description="Reads a minute of one account, or of one address without a key."
    )
    writes: int = Field(default=600, ge=0, description="Requests a minute that change something.")
    searches: int = Field(default=600, ge=0, description="Searches a minute.")
    downloads: int = Field(default=1200, ge=0, description="Files and images a minute.")
    failed_keys: int = Field(
        default=120, ge=0, description="API keys a minute from one address that do not work; more are not looked up."
    )


class SearchSettings(BaseModel):
    """The read model that searches ask."""

    elasticsearch_url: SecretStr = Field(
        default=SecretStr(""),
        description="http(s)://[user:password@]host:port of Elasticsearch; empty: search in Postgres.",
    )
    index_prefix: str = Field(
        default="darkroom",
        pattern=r"^[a-z][a-z0-9_-]{0,40}$",
        description="Begins the name of every Elasticsearch index.",
    )
    timeout_seconds: float = Field(default=5.0, gt=0, description="How long a search may take.")
    index_memory_mib: int = Field(
        default=2048,
        ge=64,
        description="Memory of Postgres at most while it makes an index of vectors; beyond it it crawls.",
    )
    encoder_folder: str = Field(
        default="", description="BERT-style folder for semantic search; empty: the installed MiniLM; `off`: none."
    )


class UploadSettings(BaseModel):
    """What may be uploaded: photos of a data set, files of a model."""

    max_images: int = Field(default=500, ge=1, description="Images in one data set.")
    max_image_bytes: int = Field(default=32 * MIB, ge=1, description="Bytes of one image file.")
    max_pixels: int = Field(default=24_000_000, ge=1, description="Pixels of one image, from its header.")
    max_upload_bytes: int = Field(default=512 * MIB, ge=1, description="Bytes of one upload request or zip archive.")
    max_unpacked_bytes: int = Field(default=1 * GIB, ge=1, description="Bytes a zip archive may unpack to.")
    max_model_bytes: int = Field(default=16 * GIB, ge=1, description="Bytes of one model file.")
    unfinished_hours: float = Field(
        default=24.0, gt=0, description="A model file's upload is dropped after this long a pause."
    )


class QuotaSettings(BaseModel):
    """What one account may hold, and what must stay free on this machine's disks. 0: no limit.

    A running job is never stopped: what it makes counts, and is kept.
    """

    account_bytes: int = Field(
        default=256 * GIB,
        ge=0,
        le=MAX_BYTES,
        description="Bytes an account may hold: files, images, photos, what its jobs made, uploads begun; 0: no limit.",
    )
    unfinished_bytes: int = Field(
        default=64 * GIB, ge=0, le=MAX_BYTES, description="Bytes of them that may be on their way at once; 0: no limit."
    )
    unfinished_uploads: int = Field(
        default=100, ge=0, le=MAX_BYTES, description="Unfinished uploads of model files of one account; 0: no limit."
    )
    free_space_bytes: int = Field(
        default=1 * GIB,
        ge=0,
        le=MAX_BYTES,
        description="With less free on a disk, uploads and new jobs are refused until there is room; 0: not looked at.",
    )

    @property
    def limits(self) -> Limits:
        """Those of one account."""
        return Limits(
            account_bytes=self.account_bytes,
            unfinished_bytes=self.unfinished_bytes,
            unfinished_uploads=self.unfinished_uploads,
        )


class JobSettings(BaseModel):
    """How jobs are watched."""

    heartbeat_seconds: float = Field(default=5.0, gt=0, description="A running job says it is alive this often.")
    silent_after_seconds: float = Field(
        default=30.0, gt=0, description="A running job silent for longer gets a new attempt."
    )
    max_silent_attempts: int = Field(
        default=3, ge=1, description="Attempts without a newer checkpoint before a job fails."
    )
    relay_poll_seconds: float = Field(default=2.0, gt=0, description="How often the relay looks when nobody wakes it.")
    memory_limit_bytes: int = Field(
        default=0,
        ge=0,
        description="Data memory of a flow's process; 0: 70 % of the machine's, or its container's.",
    )
    threads: int = Field(default=0, ge=0, description="Torch threads of a flow's process; 0: as many as cores.")
    drawing_workers: int = Field(
        default=0,
        ge=0,
        description="Most processes that draw one set of images; 0: one a GPU, or CPU cores over threads.",
    )
    warm_starts: bool = Field(
        default=True, description="Flow runs are forked from a process with their imports done (never beside a GPU)."
    )
    embedders_folder: Path | None = Field(
        default=None,
        description="Folder with `clip/` or `dino/`, models in transformers layout that also measure fine-tunes.",
    )
    stall_minutes: float = Field(
        default=30.0,
        gt=0,
        description="Minutes (by the monotonic clock) without a step, an image or a tensor, after which a job fails.",
    )
    patience_seconds: float = Field(default=600.0, gt=0, description="How long a flow waits for an unavailable store.")
    crash_points: dict[str, str] = Field(
        default_factory=dict, description="For fault tests: point name to `die:FILE` or `wait:FILE`, once each."
    )
    max_queued_per_account: int = Field(default=1000, ge=1, description="Unfinished jobs one account may have.")


class GenerationSettings(BaseModel):
    """What draws images, how much at once, and what it costs."""

    engine: bool = Field(
        default=True, description="This machine draws with an engine of its own; false: only another backend draws."
    )
    model_memory_bytes: int = Field(
        default=0,
        ge=0,
        description="Bytes of models that an engine keeps on its device; 0: half of what is free when it starts.",
    )
    idle_seconds: float = Field(
        default=300.0, ge=0, description="An engine forgets its models when nobody has drawn for so long."
    )
    at_once: int = Field(
        default=16,
        ge=1,
        le=64,
        description="Workflows that are handed to backends at once, of one account at most half of them while another "
        "waits; the engine draws 8 pictures together.",
    )
    unavailable_minutes: float = Field(
        default=30.0, gt=0, description="A step fails when what could draw it has not responded for so many minutes."
    )
    linger_seconds: float = Field(
        default=30.0, ge=0, description="The flow run that draws waits so long for more; a start costs seconds."
    )
    credits: float = Field(
        default=1.0, ge=0, description="Credits of a picture of 512 x 512 pixels in 25 guided steps; others go by it."
    )
    low_priority: float = Field(default=1.0, ge=0, description="What credits are multiplied by at low priority.")
    high_priority: float = Field(default=1.5, ge=0, description="What credits are multiplied by at high priority.")


class MetricsSettings(BaseModel):
    """Counted acts and their sums."""

    keep_days: int = Field(default=400, ge=366, description="Days that counted acts and their hourly sums are kept.")
    late_after_seconds: float = Field(default=900.0, gt=0, description="Counts that are this late raise an alert.")


class NotificationSettings(BaseModel):
    """How readers are notified outside the platform."""

    sealing_key: SecretStr = Field(
        default=SecretStr(""),
        description="Seals addresses and their secrets at rest; empty: the data folder's own key.",
    )
    previous_sealing_key: SecretStr = Field(
        default=SecretStr(""),
        description="The sealing key before it: what it sealed still opens; empty: the data folder's.",
    )
    smtp_host: str = Field(default="", description="Mail server that takes our e-mail; empty: no e-mail is sent.")
    smtp_port: int = Field(default=587, ge=1, le=65535, description="Port of the mail server.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the connection to it is secured."
    )
    smtp_user: str = Field(default="", description="Account on the mail server; empty: none.")
    smtp_password: SecretStr = Field(default=SecretStr(""), description="Password of that account.")
    sender: str = Field(
        default="darkroom@localhost",
        description="E-mail address that our e-mail comes from, and that push services may write to.",
    )
    call_seconds: float = Field(default=20.0, gt=0, description="One sending, whatever its channel, may take so long.")
    claim_seconds: float = Field(
        default=120.0, gt=0, description="A sending whose worker died is taken again after so long."
    )
    debounce_seconds: float = Field(
        default=60.0,
        ge=0,
        le=3600,
        description="What interrupts waits so long for more of its kind; 0: it does not.",
    )
    keep_days: int = Field(default=180, ge=7, description="Days that notifications, and what became of them, are kept.")
    secret_overlap_hours: float = Field(
        default=24.0,
        gt=0,
        description="How long webhooks are signed with the old secret too, after a new one was made.",
    )

    @model_validator(mode="after")
    def _claims_outlive_calls(self) -> Self:
        # A claim that ends before its call does is another worker's, and the message goes out twice.
        if self.claim_seconds < self.call_seconds * 2:
            raise ValueError("notifications.claim_seconds must be at least twice notifications.call_seconds")
        return self


class RetentionSettings(BaseModel):
    """How long things are kept, and how much of what can be made again. docs/how-to/retention.md lists what goes.

    0 is refused: it could mean "delete all" as well as "never". What should be kept for ever: 36500 days.
    """

    outbox_days: int = Field(
        default=30, le=36500, description="Days that an event is kept after it has had its effect."
    )
    flow_run_days: int = Field(
        default=90,
        le=36500,
        description="Days that Prefect keeps runs that ended, with logs, artifacts; links to pictures hold 30 more.",
    )
    flow_event_days: int = Field(default=7, le=36500, description="Days that Prefect keeps its own events.")
    tracking_run_days: int = Field(
        default=90, le=36500, description="Days that MLflow keeps runs of flows that are no job."
    )
    history_days: int = Field(
        default=400, le=36500, description="Days that alerts that are over and finished backfills are kept."
    )
    checkpoint_days: int = Field(
        default=90,
        le=36500,
        description="Days that checkpoints of jobs that failed are kept, and base models that were replaced.",
    )
    picture_days: int = Field(
        default=365,
        le=36500,
        description="Days that pictures of generations are kept after the job's end, unless they were published.",
    )
    source_picture_days: int = Field(
        default=30,
        le=36500,
        description="Days after which pictures are deleted that were sent for generations and that none has named.",
    )
    sampled_set_days: int = Field(
        default=365,
        le=36500,
        description="Days after which class images that no job asked for are deleted; at least 7.",
    )
    vector_days: int = Field(default=365, le=36500, description="Days after which the vector of a text is made again.")
    leftover_days: int = Field(
        default=7, le=36500, description="Days that working folders of flows that died are kept."
    )
    compiled_days: int = Field(
        default=30, le=36500, description="Days after which kernels that `compile` of a training made are made again."
    )
    base_model_cache_gib: float = Field(
        default=50.0, description="GiB of base models that this machine keeps a copy of."
    )
    model_version_cache_gib: float = Field(default=50.0, description="GiB of model versions that it keeps a copy of.")
    encoding_cache_gib: float = Field(
        default=10.0, description="GiB of latents and encoded prompts that it keeps for later trainings."
    )
    mlflow_store_url: SecretStr = Field(
        default=SecretStr(""),
        description="SQLAlchemy URL of MLflow's database, in which deleted runs are erased; empty: the embedded one.",
    )
    log_mib: float = Field(
        default=64.0, description="MiB of one log file of the embedded platform; as much again is kept."
    )

    @field_validator("*", mode="after")
    @classmethod
    def _keeps_something(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, int | float):
            return value
        # Checked here and not by ge=: the message is to say what keeps everything, which is not 0.
        least = {"sampled_set_days": 7, "log_mib": 1}.get(
            info.field_name or "", 0.001 if isinstance(value, float) else 1
        )
        if value < least:
            unit = (info.field_name or "").rsplit("_", 1)[-1]
            large = "36500 days" if unit == "days" else f"more {_UNITS[unit]} than the disk has"
            raise ValueError(f"it is {value:g}, and the least is {least:g}. To keep everything, set {large}")
        return value


_UNITS = {"gib": "GiB", "mib": "MiB"}


class LogSettings(BaseModel):
    """What the processes write to their logs: one line an event."""

    format: Literal["text", "json"] = Field(default="text", description="`text`, or `json`: one object a line.")
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="From which level on our own lines are written; those of libraries from WARNING on."
    )


class Settings(EmbeddedServers, BaseSettings):
    """All settings. Built once at each root: the API, a flow, the relay, a CLI command."""

    model_config = SettingsConfigDict(env_prefix="DARKROOM_", env_nested_delimiter="__", extra="ignore")

    data_folder: Path = Field(
        default=Path("~/.darkroom"), description="The one folder in which the embedded platform keeps everything."
    )
    # pydantic copies such a default for each instance, so what the validator below writes into a group stays its own.
    postgres: PostgresSettings = PostgresSettings()
    redis: RedisSettings = RedisSettings()
    blobs: BlobSettings = BlobSettings()
    prefect: PrefectSettings = PrefectSettings()
    mlflow: MlflowSettings = MlflowSettings()
    api: ApiSettings = ApiSettings()
    limits: LimitSettings = LimitSettings()
    cache: CacheSettings = CacheSettings()
    search: SearchSettings = SearchSettings()
    uploads: UploadSettings = UploadSettings()
    quotas: QuotaSettings = QuotaSettings()
    jobs: JobSettings = JobSettings()
    generation: GenerationSettings = GenerationSettings()
    metrics: MetricsSettings = MetricsSettings()
    notifications: NotificationSettings = NotificationSettings()
    retention: RetentionSettings = RetentionSettings()
    logs: LogSettings = LogSettings()
    backup: BackupSettings = BackupSettings()
    tracking: TrackingSettings = TrackingSettings()
    comfyui: ComfyuiSettings = ComfyuiSettings()
    orchestration: OrchestrationSettings = OrchestrationSettings()

    @model_validator(mode="after")
    def _point_at_the_embedded_parts(self) -> Self:
        self.data_folder = self.data_folder.expanduser().absolute()
        self.blobs.url = self.blobs.url or (self.data_folder / "blobs").as_uri()
        self.prefect.api_url = self.prefect.api_url or self.prefect.embedded_api_url
        self.prefect.ui_url = self.prefect.ui_url or self.prefect.api_url.removesuffix("/api")
        self.mlflow.url = self.mlflow.url or self.mlflow.embedded_url
        self.mlflow.ui_url = self.mlflow.ui_url or self.mlflow.url
        self.api.public_url = self.api.public_url or f"http://{self.api.host}:{self.api.port}"
        # After the URLs: which secrets the data folder holds depends on which servers are embedded.
        for (group, field), own in self.own_secrets().items():
            if not getattr(getattr(self, group), field).get_secret_value():
                setattr(getattr(self, group), field, SecretStr(own))
        self.backup.key_file = self.backup.key_file or str(self.data_folder / "backup.key")
        if self.mlflow_is_embedded:
            self.backup.mlflow_artifacts = self.backup.mlflow_artifacts or (self.data_folder / "mlflow").as_uri()
        return self

    def own_secrets(self) -> dict[tuple[str, str], str]:
        """What the data folder holds for each secret setting, by group and field; empty where it holds nothing yet.

        A process that knows the data folder reads these there, so they need not be in its environment.
        """
        held = {name: text_of(file) for name, file in (self.secret_files() | self.previous_key_files()).items()}
        urls = {
            ("postgres", "url"): self.embedded_postgres_url("darkroom"),
            ("redis", "url"): self.embedded_valkey_url,
            **(
                {("backup", "prefect_database"): self.embedded_postgres_url("prefect")}
                if self.prefect_is_embedded
                else {}
            ),
            **(
                {("backup", "mlflow_database"): self.embedded_postgres_url("mlflow")} if self.mlflow_is_embedded else {}
            ),
        }
        return {**held, **urls}

    def secret_files(self) -> dict[tuple[str, str], Path]:
        """The file of mode 0600 in the data folder that holds a secret setting, by group and field. What is embedded
        has one only while it is the one that is used."""
        return {
            ("api", "signing_key"): self.signing_key_file,
            ("notifications", "sealing_key"): self.sealing_key_file,
            **({("prefect", "auth"): self.prefect_auth_file} if self.prefect_is_embedded else {}),
            **({("mlflow", "auth"): self.mlflow_auth_file} if self.mlflow_is_embedded else {}),
        }

    def previous_key_files(self) -> dict[tuple[str, str], Path]:
        """The file that `darkroom rotate` keeps the key before in, by the group and field of the setting."""
        return {
            ("api", "previous_signing_key"): previous_key_file(self.signing_key_file),
            ("notifications", "previous_sealing_key"): previous_key_file(self.sealing_key_file),
        }

    @property
    def has_embedded_stores(self) -> bool:
        """Whether `darkroom up` runs any of the servers on this machine."""
        return (
            self.prefect_is_embedded
            or self.mlflow_is_embedded
            or self.postgres.url.get_secret_value() == self.embedded_postgres_url("darkroom")
            or self.redis.url.get_secret_value() == self.embedded_valkey_url
        )

    @property
    def prefect_is_embedded(self) -> bool:
        """Whether `darkroom up` runs Prefect's server on this machine."""
        return self.prefect.api_url == self.prefect.embedded_api_url

    @property
    def mlflow_is_embedded(self) -> bool:
        """Whether `darkroom up` runs MLflow's server on this machine."""
        return self.mlflow.url == self.mlflow.embedded_url

    @property
    def backed_up_secrets(self) -> list[Path]:
        """Every file of the data folder that holds a secret (mode 0600): a backup holds them, sealed."""
        files = self.secret_files() | self.previous_key_files()
        return [*files.values(), self.valkey_key_file, self.valkey_darkroom_key_file, self.owner_key_file]

    @property
    def sealing_key_file(self) -> Path:
        """Where `darkroom up` keeps the key that seals addresses and their secrets (mode 0600)."""
        return self.data_folder / "sealing.key"

    @property
    def signing_key_file(self) -> Path:
        """Where `darkroom up` keeps the key that signs image links (mode 0600)."""
        return self.data_folder / "signing.key"

    @property
    def model_uploads_folder(self) -> Path:
        """Where model files lie until they are whole. Several API processes on one machine share it."""
        return self.data_folder / "model-uploads"

    @property
    def owner_key_file(self) -> Path:
        """Where the first `darkroom up` writes the owner's API key (mode 0600); the CLI reads it."""
        return self.data_folder / "owner.key"

    def embedded_postgres_url(self, database: str) -> str:
        """URL of one database of the embedded server, over its unix socket in the data folder."""
        return f"postgresql://postgres@/{database}?host={quote(str(self.data_folder / 'postgres'), safe='/')}"


def previous_key_file(file: Path) -> Path:
    """Where `darkroom rotate` keeps the key that a key file held before (mode 0600): signing.previous.key."""
    return file.with_suffix(f".previous{file.suffix}")


def variable_of(*names: str) -> str:
    """The environment variable that a setting is read from, by its group and field."""
    return f"DARKROOM_{'__'.join(names)}".upper()


def variables() -> set[str]:
    """The environment variables of all settings; a group's own name takes the whole group as JSON."""
    found: set[str] = set()
    for name, field in Settings.model_fields.items():
        found.add(variable_of(name))
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= {variable_of(name, inner) for inner in field.annotation.model_fields}
    return found


def load_settings() -> Settings:
    """The settings of this process, from its environment.

    Raises InvalidSettings, with every variable that is wrong or that is no setting: a misspelt or an old name would
    otherwise be passed over, and its default be taken.
    """
    if unknown := unknown_names(os.environ, variables()):
        raise InvalidSettings("; ".join(f"{name} {advice}" for name, advice in unknown.items()))
    try:
        return Settings()
    except ValidationError as error:
        # Never the values: some of them are secrets.
        faults = error.errors(include_input=False, include_url=False)
        named = [(variable_of(*(str(part) for part in fault["loc"])), fault["msg"]) for fault in faults]
        faults = [f"{name}: {message.removeprefix('Value error, ')}" for name, message in named]
        raise InvalidSettings("; ".join(faults)) from None
