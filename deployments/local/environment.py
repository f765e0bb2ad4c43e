"""The environment that each part of the platform is started with, built from the settings.

Nothing of Prefect's, MLflow's or Darkroom's that happens to be set in the caller's shell reaches a part: a stray
PREFECT_API_URL would send flow runs to another server. Secrets never travel on a command line, and here only to the
parts that work with them; what the data folder holds is read there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, SecretStr

from deployments.local.servers.postgres import EmbeddedPostgres
from storage.settings import MlflowSettings, PrefectSettings, Settings, variable_of

PROJECT = Path(__file__).resolve().parents[2]
PREFECT_LOGGING = PROJECT / "deployments" / "prefect-logging.yaml"
# Carried by every process of one platform, so that whatever an earlier `up` left behind can be found by it.
DATA_FOLDER_MARK = "DARKROOM_PLATFORM_FOLDER"
PART_MARK = "DARKROOM_PLATFORM_PART"
NOT_INHERITED = ("PREFECT_", "MLFLOW_", "_MLFLOW_", "DARKROOM_", "PYTHON", "DO_NOT_TRACK", "OMP_", "GOMP_")
# Programs that others wrote and that hold no part of our settings.
SERVERS = frozenset({"postgres", "valkey", "prefect", "mlflow"})
INHERITED_BY_SERVERS = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "SSL_CERT_",
)
# Of ours, and it asks no store but the blobs, which have no secret among the settings.
WITHOUT_SECRETS = frozenset({"engine"})
# Beginnings of the parts' names.
CLIENTS_OF_PREFECT = ("relay", "worker-", "deploy")
# Who knows a secret setting that is given in the environment of `up`.
SECRETS_OF: dict[str, tuple[str, ...]] = {
    "DARKROOM_API__KEY": (),
    "DARKROOM_PREFECT__AUTH": ("relay", "deploy", "worker-training", "worker-light"),
    "DARKROOM_MLFLOW__AUTH": ("worker-training", "worker-light"),
    "DARKROOM_COMFYUI__SECRET": ("worker-light",),
    "DARKROOM_NOTIFICATIONS__SEALING_KEY": ("api", "worker-light"),
    "DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY": ("api", "worker-light"),
    "DARKROOM_NOTIFICATIONS__SMTP_PASSWORD": ("worker-light",),
    "DARKROOM_BACKUP__PREFECT_DATABASE": ("worker-light",),
    "DARKROOM_BACKUP__MLFLOW_DATABASE": ("worker-light",),
    "DARKROOM_RETENTION__MLFLOW_STORE_URL": ("worker-light",),
}
SECRETS_OF_EVERY_PART = frozenset(
    {
        "DARKROOM_POSTGRES__URL",
        "DARKROOM_REDIS__URL",
        "DARKROOM_API__SIGNING_KEY",
        "DARKROOM_API__PREVIOUS_SIGNING_KEY",
        "DARKROOM_SEARCH__ELASTICSEARCH_URL",
    }
)
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost"})
# A unix socket's path has 107 bytes at most, and Python's fork server puts two names of its own behind the folder.
MAX_TEMPORARY_PATH = 107 - 36

# The first for Prefect's clients and MLflow, which compares with the word `true`; Prefect's server goes by the second.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def settings_environment(settings: Settings, part: str = "") -> dict[str, str]:
    """The settings as DARKROOM_* variables: a process with them builds equal settings.

    Secrets that the data folder holds are left out, since every process reads them there; so are those that `part`
    does not work with.
    """
    own: dict[tuple[str, ...], str] = {**settings.own_secrets()}
    return {
        variable_of(*names): text
        for names, text, secret in _variables(settings)
        if not secret or (own.get(names) != text and (not part or works_with(part, variable_of(*names))))
    }


def works_with(part: str, variable: str) -> bool:
    """Whether a part of the platform is to know a secret setting."""
    if part in SERVERS or part in WITHOUT_SECRETS:
        return False
    return variable in SECRETS_OF_EVERY_PART or part in SECRETS_OF.get(variable, ())


def _variables(group: BaseModel, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str, bool]]:
    """Each setting: its group and name, its text, and whether it is a secret."""
    for name in type(group).model_fields:
        value: object = getattr(group, name)
        if isinstance(value, BaseModel):
            yield from _variables(value, (*names, name))
        elif isinstance(value, SecretStr):
            yield (*names, name), value.get_secret_value(), True
        # None is what a setting has that nobody gave: no text says that, so it is left out.
        elif value is not None:
            text = json.dumps(value) if isinstance(value, (dict, list, tuple)) else str(value)
            yield (*names, name), text, False


def bare_environment(settings: Settings, part: str) -> dict[str, str]:
    """What a part gets of the caller's environment, marked with the platform and the part. Servers that we did not
    write get what a program needs anywhere, and so none of the credentials that a shell may hold."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if (name.startswith(INHERITED_BY_SERVERS) if part in SERVERS else not name.startswith(NOT_INHERITED))
    }
    return {**inherited, DATA_FOLDER_MARK: str(settings.data_folder), PART_MARK: part}


def shared_environment(settings: Settings, part: str) -> dict[str, str]:
    """What every Python part gets, and every process that it starts."""
    bare = bare_environment(settings, part)
    return {
        **bare,
        **NO_TELEMETRY,
        **settings_environment(settings, part),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{bare.get('PATH', os.defpath)}",
        "PYTHONPATH": str(PROJECT),
        "PYTHONUNBUFFERED": "1",
        **prefect_client_environment(settings, part),
        **mlflow_client_environment(settings),
    }


def prefect_client_environment(settings: Settings, part: str) -> dict[str, str]:
    """What a process needs to speak with Prefect's server: the relay, the workers, flows and `prefect deploy`."""
    auth = settings.prefect.auth.get_secret_value()
    return {
        **({"PREFECT_API_AUTH_STRING": auth} if auth and part.startswith(CLIENTS_OF_PREFECT) else {}),
        "PREFECT_HOME": str(settings.data_folder / "prefect"),
        "PREFECT_API_URL": settings.prefect.api_url,
        "PREFECT_UI_URL": settings.prefect.ui_url,
        "PREFECT_CLI_PROMPT": "false",
        # Otherwise a client without an address starts a server of its own, and says that the deployment does not exist.
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
        # With Postgres unavailable Prefect's server returns 500, which its client does not repeat unless configured to.
        "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
        # The default is pickle, which runs what it reads.
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        # Prefect's default is 180 s. A run that is silent for three of ours is marked as crashed (automations.py).
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_LOGGING_SETTINGS_PATH": str(PREFECT_LOGGING),
    }


def prefect_hosts(settings: PrefectSettings) -> list[str]:
    """The names that Prefect's server accepts in a Host header: those of its addresses, and this machine's own."""
    named = {urlsplit(url).hostname or "" for url in (settings.api_url, settings.ui_url)}
    return sorted((named | LOCAL_NAMES) - {""})


def prefect_origins(settings: PrefectSettings) -> list[str]:
    """Where the pages come from that may call Prefect's API: its own, by each name that a browser may use."""
    page = urlsplit(settings.ui_url)
    names = LOCAL_NAMES if page.hostname in LOCAL_NAMES else {page.hostname or ""}
    port = f":{page.port}" if page.port else ""
    return sorted(f"{page.scheme}://{name}{port}" for name in names)


def mlflow_hosts(settings: MlflowSettings) -> list[str]:
    """What MLflow's server takes in a Host header: its addresses with their ports, and its port on this machine."""
    named = {urlsplit(url).netloc.rpartition("@")[2] for url in (settings.url, settings.ui_url)}
    return sorted((named | {f"{name}:{settings.port}" for name in LOCAL_NAMES}) - {""})


def mlflow_origins(settings: MlflowSettings) -> list[str]:
    """Where the pages come from that may change something in MLflow, beside those of this machine: its own."""
    page = urlsplit(settings.ui_url)
    return [f"{page.scheme}://{page.netloc}"]


def mlflow_client_environment(settings: Settings) -> dict[str, str]:
    """Where MLflow is; who a process is there and how long it waits, `flows.jobs.tracking` says."""
    return {
        "MLFLOW_TRACKING_URI": settings.mlflow.url,
        # Only hidden: it saves no memory.
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
    }


def prefect_server_environment(settings: Settings, postgres: EmbeddedPostgres) -> dict[str, str]:
    """Prefect's server on Postgres, with its events and leases in Valkey.

    In memory, an automation that reacts to a crash is held for 15 minutes or lost when the server starts again.
    """
    return {
        # SQLite locks with a single client: 250 submissions in a row gave thousands of lines "database is locked" and
        # calls of 15 s, on Postgres none and 0.9 s at most (PrefectHQ/prefect issues 10188 and 18934).
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://postgres@/prefect?host={postgres.folder}",
        "PREFECT_SERVER_API_HOST": "127.0.0.1",
        "PREFECT_SERVER_API_PORT": str(settings.prefect.port),
        "PREFECT_SERVER_UI_API_URL": settings.prefect.api_url,
        "PREFECT_SERVER_API_AUTH_STRING": settings.prefect.auth.get_secret_value(),
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": ",".join(prefect_origins(settings.prefect)),
        # Each of these four is in the server's memory unless it is named; the order alone in memory held events back
        # for 15 minutes (PrefectHQ/prefect issue 18766).
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_REDIS_MESSAGING_URL": settings.prefect_valkey_url(0),
        "PREFECT_SERVER_DOCKET_URL": settings.prefect_valkey_url(1),
        **prefect_retention_environment(settings),
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # Its pages are written out where they are served; beside its code another user may not read or write them.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(settings.data_folder / "prefect" / "pages"),
        # No flow uses a block. Registering the 60 known types imports every integration: 19 MB and 3 s of every start.
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        # Each of these looks every 5 s for what a platform of one machine rarely has: with two workers' questions they
        # are what an idle server does (14 % of a core before, 6 to 8 % now). A run counts as late after 15 s anyway.
        "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "15",
        "PREFECT_SERVER_SERVICES_PAUSE_EXPIRATIONS_LOOP_SECONDS": "15",
        "PREFECT_SERVER_SERVICES_CLEANUP_RECONCILER_LOOP_SECONDS": "15",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "15",
        # Private, and set by `prefect server start` for the process that it starts. No upstream issue found (searched
        # 2026-11-29): a page on serving `create_app` by one's own uvicorn would do.
        "PREFECT__SERVER_FINAL": "1",
    }


def prefect_retention_environment(settings: Settings) -> dict[str, str]:
    """What makes Prefect's server delete its old rows by itself, every hour, in batches."""
    kept = settings.retention
    return {
        # Prefect's default is events alone: runs with their logs and artifacts would be kept for ever.
        "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": str(kept.flow_run_days * 86400),
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": f"P{kept.flow_event_days}D",
    }


def mlflow_database(postgres: EmbeddedPostgres) -> str:
    """The database of MLflow's runs, models and accounts, as SQLAlchemy names it."""
    return f"postgresql+psycopg://postgres@/mlflow?host={postgres.folder}"


def mlflow_server_environment(settings: Settings, postgres: EmbeddedPostgres) -> dict[str, str]:
    """MLflow's server started without its parent process and its job runner: 245 MB instead of 2 GB.

    The names that begin with an underscore are private: what `mlflow server` itself hands to its web process. No
    upstream issue found (searched 2026-11-29); public names for the same would do.
    """
    return {
        "_MLFLOW_SERVER_FILE_STORE": mlflow_database(postgres),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        # Without it creating an experiment returns 500.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": (settings.data_folder / "mlflow").as_uri(),
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_AUTH_CONFIG_PATH": str(settings.mlflow_accounts_file),
        # No part uses its jobs; their processes also grow (mlflow/mlflow issue 22792).
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }


def temporary_folder(settings: Settings) -> Path | None:
    """Where workers and flows keep what is theirs while they run, so that a killed one leaves nothing elsewhere; `up`
    empties it. None where the data folder's path is too long for the sockets in it."""
    folder = settings.data_folder / "tmp"
    return folder if len(os.fsencode(folder)) <= MAX_TEMPORARY_PATH else None


def flow_environment(settings: Settings) -> dict[str, str]:
    """What a worker hands on to its flow processes."""
    threads = settings.jobs.threads or os.cpu_count() or 1
    temporary = temporary_folder(settings)
    return {
        **({"TMPDIR": str(temporary)} if temporary else {}),
        # Prefect's default is 10 s, which would come before every job.
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait spin for a moment, then sleep: one that spins holds the core that the other thread needs.
        # A step of the starter on two cores (benchmarks/fairness.py), alone and beside one busy process: 0.37 and
        # 1.81 s at 10,000, 0.42 and 0.74 s at 1,000, 0.45 and 0.60 s at 0; as long as OpenMP likes, up to a minute.
        "GOMP_SPINCOUNT": "1000",
        # Its threads do not survive a fork, and flow runs are forked (workers/warm_starts.py).
        "TOKENIZERS_PARALLELISM": "false",
        # Base models are folders that the operator has registered; nothing is fetched while a job runs.
        "HF_HUB_OFFLINE": "1",
    }
