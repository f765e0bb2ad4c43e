"""What the embedded platform consists of: for each part its command, its environment, and when it counts as healthy.

    postgres ─┬─► prefect ─┬─► deploy (once, when something changed or was lost)
    valkey ───┤            ├─► worker-training, worker-light
              │            └─► relay
              ├─► mlflow
              └─► api
    engine

A part starts as soon as all it needs is healthy. A part whose address in the settings is somewhere else is left out.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from deployments.local import environment as env
from deployments.local.servers import probes
from deployments.local.servers.mlflow import prepare_mlflow
from deployments.local.servers.postgres import OURSELVES, EmbeddedPostgres, RunAs, account_to_run_as
from deployments.local.servers.valkey import EmbeddedValkey
from storage.embedded_servers import text_of
from storage.settings import Settings

FLOW_NICENESS = 5
"""Behind what serves people. 0, 5 and 10 made no difference to a step: how long threads spin does."""


def _nothing() -> None:
    """No step at this point."""


def _never(_since: float) -> bool:
    """Not started a second time."""
    return False


@dataclass(frozen=True, slots=True)
class Listens:
    """A port a part needs, and the setting that moves it."""

    port: int
    setting: str


@dataclass(frozen=True, slots=True)
class Part:
    """One process of the platform.

    `once`: it is healthy when it has ended with status 0. It is started again only when `wanted_again`, which is asked
    now and then with the time of that end (seconds since the epoch), says so. `done_already`: it counts as ended.

    `optional`: the platform is up without it, however often it fails. `silent_seconds`: after so long without a
    response a healthy one is started again; 0: it is not asked once it is healthy.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    healthy: probes.Probe
    needs: Sequence[str] = ()
    listens: Listens | None = None
    url: str = ""
    before_start: Callable[[], None] = _nothing
    when_healthy: Callable[[], object] = _nothing
    once: bool = False
    done_already: bool = False
    wanted_again: Callable[[float], bool] = _never
    optional: bool = False
    silent_seconds: float = 0.0
    niceness: int = 0
    starts_flows: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    stop_seconds: float = 5.0
    start_seconds: float = 180.0  # a machine that is busy with other work is slow, not broken
    run_as: RunAs = OURSELVES


@dataclass(frozen=True, slots=True)
class Steps:
    """What the platform does between its parts: filled in by `deployments.local.steps`, empty in tests of one part."""

    databases_ready: Callable[[], None] = _nothing
    prefect_ready: Callable[[], object] = _nothing
    deploy_needed: bool = False
    deploy_wanted_again: Callable[[float], bool] = _never


def embedded_postgres(settings: Settings) -> EmbeddedPostgres:
    """The server in the data folder."""
    return EmbeddedPostgres(settings.data_folder / "postgres")


def is_embedded(settings: Settings, store: str) -> bool:
    """Whether `store` (postgres, redis, prefect, mlflow) is the one that `darkroom up` runs on this machine."""
    match store:
        case "prefect":
            return settings.prefect_is_embedded
        case "mlflow":
            return settings.mlflow_is_embedded
        case "postgres":
            return settings.postgres.url.get_secret_value() == settings.embedded_postgres_url("darkroom")
        case "redis":
            return settings.redis.url.get_secret_value() == settings.embedded_valkey_url
        case _:
            raise ValueError(f"{store!r} is not a store of the platform.")


def platform_parts(settings: Settings, steps: Steps) -> list[Part]:
    """Every part that these settings ask for, in the order of starting."""
    prefect, mlflow = is_embedded(settings, "prefect"), is_embedded(settings, "mlflow")
    wanted = [
        *([postgres(settings, steps)] if prefect or mlflow or is_embedded(settings, "postgres") else []),
        *([valkey(settings)] if prefect or is_embedded(settings, "redis") else []),
        *([prefect_server(settings, steps)] if prefect else []),
        *([mlflow_server(settings)] if mlflow else []),
        *([deploy(settings, steps)] if prefect else []),
        # One at a time, by the worker and not by a concurrency limit of the deployment, which does not keep their
        # order.
        worker(settings, "training", limit=1),
        # One of them draws for as long as anything is due.
        worker(settings, "light", limit=5),
        relay(settings),
        api(settings),
        *([engine(settings)] if settings.generation.engine else []),
    ]
    present = {part.name for part in wanted}
    return [_needing_only(part, present) for part in wanted]


def _needing_only(part: Part, present: set[str]) -> Part:
    return replace(part, needs=tuple(name for name in part.needs if name in present))


def postgres(settings: Settings, steps: Steps) -> Part:
    """PostgreSQL, with the databases darkroom, prefect and mlflow."""
    server = embedded_postgres(settings)

    def ready() -> None:
        server.create_databases(["darkroom", "prefect", "mlflow"])
        steps.databases_ready()

    return Part(
        name="postgres",
        command=server.command(),
        environment=env.bare_environment(settings, "postgres"),
        healthy=lambda _pid: server.responds(),
        url=str(server.folder),
        before_start=server.prepare,
        when_healthy=ready,
        stop_signal=signal.SIGINT,  # fast shutdown; SIGTERM would wait for every client to leave
        stop_seconds=15.0,
        run_as=account_to_run_as(),
    )


def valkey(settings: Settings) -> Part:
    """Valkey: database 0 carries Prefect's events, 1 its own work queue, 2 is Darkroom's."""
    server = EmbeddedValkey(settings.valkey_socket)
    return Part(
        name="valkey",
        command=server.command(),
        environment=env.bare_environment(settings, "valkey"),
        healthy=probes.valkey_probe(settings.valkey_socket, settings.valkey_key_file),
        url=str(server.socket),
        before_start=lambda: server.prepare(
            text_of(settings.valkey_key_file), text_of(settings.valkey_darkroom_key_file)
        ),
    )


def prefect_server(settings: Settings, steps: Steps) -> Part:
    """Prefect's API, pages, scheduler and services in one process."""
    return Part(
        name="prefect",
        command=[
            *(sys.executable, "-m", "uvicorn", "deployments.prefect_server:create", "--factory"),
            *("--host", "127.0.0.1", "--port", str(settings.prefect.port), "--log-level", "warning"),
        ],
        environment=env.shared_environment(settings, "prefect")
        | env.prefect_server_environment(settings, embedded_postgres(settings)),
        healthy=probes.http_probe(f"{settings.prefect.api_url}/health"),
        needs=("postgres", "valkey"),
        listens=Listens(settings.prefect.port, "DARKROOM_PREFECT__PORT"),
        url=settings.prefect.ui_url,
        when_healthy=steps.prefect_ready,
    )


def mlflow_server(settings: Settings) -> Part:
    """MLflow's tracking server and registry. /health responds before the database does, so a search is asked for."""
    server = embedded_postgres(settings)
    return Part(
        name="mlflow",
        command=[
            *(sys.executable, "-m", "uvicorn", "deployments.mlflow_server:create", "--factory"),
            *("--host", "127.0.0.1", "--port", str(settings.mlflow.port), "--log-level", "warning"),
        ],
        environment=env.shared_environment(settings, "mlflow") | env.mlflow_server_environment(settings, server),
        healthy=probes.http_probe(
            f"{settings.mlflow.rest_url}experiments/search",
            post={"max_results": 1},
            auth=settings.mlflow.credentials,
        ),
        needs=("postgres",),
        listens=Listens(settings.mlflow.port, "DARKROOM_MLFLOW__PORT"),
        url=settings.mlflow.url,
        before_start=lambda: prepare_mlflow(settings, env.mlflow_database(server)),
    )


def deploy(settings: Settings, steps: Steps) -> Part:
    """Brings Prefect's deployments in line with prefect.yaml, and ends. Again when the relay misses some there."""
    return Part(
        name="deploy",
        command=[sys.executable, "-m", "deployments.local.deploy"],
        environment=env.shared_environment(settings, "deploy"),
        healthy=lambda _pid: False,
        needs=("prefect",),
        once=True,
        done_already=not steps.deploy_needed,
        wanted_again=steps.deploy_wanted_again,
        start_seconds=600.0,
    )


def worker(settings: Settings, pool: str, *, limit: int) -> Part:
    """A worker of one process work pool. Its flow processes inherit its environment and its niceness."""
    name = f"worker-{pool}"
    return Part(
        name=name,
        command=[sys.executable, "-m", "deployments.local.workers.worker", "--pool", pool, "--limit", str(limit)],
        environment=env.shared_environment(settings, name) | env.flow_environment(settings),
        healthy=probes.polls(settings.prefect, pool, name),
        needs=("prefect",),
        niceness=FLOW_NICENESS,
        starts_flows=True,
        # Asked to stop, a worker kills its flow processes at once. Killed itself it leaves them alone, and they can be
        # asked: each ends its step, keeps its checkpoint and releases its job.
        stop_signal=signal.SIGKILL,
    )


def relay(settings: Settings) -> Part:
    """Carries committed events to their effects."""
    return Part(
        name="relay",
        command=[sys.executable, "-m", "flows.relay"],
        environment=env.shared_environment(settings, "relay"),
        healthy=probes.lives_for(2.0),
        needs=("postgres", "prefect", "deploy"),
    )


def api(settings: Settings) -> Part:
    """The API."""
    return Part(
        name="api",
        command=[
            *(sys.executable, "-m", "uvicorn", "platform_api.app:app_from_environment", "--factory"),
            *("--host", settings.api.host, "--port", str(settings.api.port)),
            # Which proxies to believe is a setting of the API; uvicorn would believe everybody on this machine.
            "--no-proxy-headers",
            # Streams end and uploads keep what they have by themselves (platform_api/http/shutdown.py); other requests
            # have as long as this.
            *("--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "10"),
        ],
        environment=env.shared_environment(settings, "api"),
        healthy=probes.http_probe(f"http://{settings.api.host}:{settings.api.port}/health/ready"),
        stop_seconds=15.0,
        needs=("postgres", "valkey"),
        listens=Listens(settings.api.port, "DARKROOM_API__PORT"),
        url=settings.api.public_url,
    )


def engine(settings: Settings) -> Part:
    """Draws images, with models that stay in memory from one job to the next. It reads the blob store alone."""
    return Part(
        name="engine",
        command=[sys.executable, "-m", "flows.generation.engine"],
        environment=env.shared_environment(settings, "engine") | env.flow_environment(settings),
        healthy=probes.engine_probe(settings.engine_socket),
        url=str(settings.engine_socket),
        niceness=FLOW_NICENESS,
        # Without it nothing is drawn here, and everything else works. Its server responds while models are read and
        # pictures are drawn.
        optional=True,
        silent_seconds=120.0,
        # Beyond it, whoever waits asks the next engine for what is missing.
        stop_seconds=15.0,
    )
