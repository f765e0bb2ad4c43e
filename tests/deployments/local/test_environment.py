"""What the parts are started with."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.settings import Settings as PrefectsOwnSettings
from pydantic import BaseModel, SecretStr

from deployments.local.environment import (
    SECRETS_OF,
    SECRETS_OF_EVERY_PART,
    bare_environment,
    flow_environment,
    prefect_retention_environment,
    settings_environment,
    shared_environment,
)
from deployments.local.parts import Steps, is_embedded, platform_parts
from storage.comfyui_settings import ComfyuiSettings
from storage.settings import (
    GenerationSettings,
    JobSettings,
    MlflowSettings,
    PostgresSettings,
    PrefectSettings,
    RedisSettings,
    RetentionSettings,
    Settings,
    variable_of,
)


def test_a_process_with_the_environment_of_a_part_builds_equal_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(
        data_folder=tmp_path,
        prefect=PrefectSettings(port=4300),
        jobs=JobSettings(heartbeat_seconds=1, crash_points={"fit": "die:/tmp/marker"}),
    )
    for name, value in settings_environment(settings).items():
        monkeypatch.setenv(name, value)

    assert Settings() == settings


def test_nothing_of_prefect_or_mlflow_in_the_callers_shell_reaches_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_KEY", "of another server")
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example.org/api")
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "of another server")
    settings = Settings(data_folder=tmp_path)

    environment = shared_environment(settings, "relay")

    assert "PREFECT_API_KEY" not in environment
    assert "MLFLOW_TRACKING_TOKEN" not in environment
    assert environment["PREFECT_API_URL"] == settings.prefect.api_url


def secret_variables(group: type[BaseModel], *names: str) -> set[str]:
    """The variables of all secret settings."""
    found: set[str] = set()
    for name, field in group.model_fields.items():
        kind = field.annotation
        if kind is SecretStr:
            found.add(variable_of(*names, name))
        elif isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= secret_variables(kind, *names, name)
    return found


def test_of_every_secret_setting_it_is_said_which_parts_know_it() -> None:
    named = set(SECRETS_OF) | SECRETS_OF_EVERY_PART
    assert secret_variables(Settings) == named
    assert set(SECRETS_OF) & SECRETS_OF_EVERY_PART == set()


def test_only_the_light_worker_knows_the_databases_of_prefect_and_mlflow(tmp_path: Path) -> None:
    url = SecretStr("postgresql://elsewhere.example.org/x")
    settings = Settings(data_folder=tmp_path, retention=RetentionSettings(mlflow_store_url=url))
    settings.backup.prefect_database = settings.backup.mlflow_database = url
    for part in ("api", "relay", "deploy", "worker-training", "worker-light", "mlflow", "prefect"):
        known = {name for name, value in shared_environment(settings, part).items() if value == url.get_secret_value()}
        names = ("BACKUP__PREFECT_DATABASE", "BACKUP__MLFLOW_DATABASE", "RETENTION__MLFLOW_STORE_URL")
        assert known == ({f"DARKROOM_{name}" for name in names} if part == "worker-light" else set()), part


def test_only_who_reads_and_writes_addresses_of_readers_knows_the_key_that_seals_them(tmp_path: Path) -> None:
    settings = Settings(data_folder=tmp_path)
    settings.notifications.sealing_key = settings.notifications.previous_sealing_key = SecretStr("of the operator")
    for part in ("api", "relay", "deploy", "worker-training", "worker-light", "mlflow", "prefect"):
        known = {name for name, value in shared_environment(settings, part).items() if value == "of the operator"}
        names = {"DARKROOM_NOTIFICATIONS__SEALING_KEY", "DARKROOM_NOTIFICATIONS__PREVIOUS_SEALING_KEY"}
        assert known == (names if part in ("api", "worker-light") else set()), part


def test_prefect_is_told_how_long_to_keep_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = RetentionSettings(flow_run_days=36500, flow_event_days=3)
    for name, value in prefect_retention_environment(Settings(data_folder=tmp_path, retention=kept)).items():
        monkeypatch.setenv(name, value)

    server = PrefectsOwnSettings().server

    assert server.services.db_vacuum.enabled_vacuum_types == {"events", "flow_runs", "orphans"}
    assert (server.services.db_vacuum.retention_period.days, server.events.retention_period.days) == (36500, 3)


def test_the_databases_get_no_setting_and_no_secret(tmp_path: Path) -> None:
    ours = {name for name in bare_environment(Settings(data_folder=tmp_path), "postgres") if "DARKROOM" in name}

    assert ours == {"DARKROOM_PLATFORM_FOLDER", "DARKROOM_PLATFORM_PART"}


def test_a_part_that_the_settings_place_elsewhere_is_left_out(tmp_path: Path) -> None:
    settings = Settings(
        data_folder=tmp_path,
        postgres=PostgresSettings(url=SecretStr("postgresql://db.example.org/darkroom")),
        redis=RedisSettings(url=SecretStr("redis://cache.example.org/2")),
        prefect=PrefectSettings(api_url="https://prefect.example.org/api"),
        mlflow=MlflowSettings(url="https://mlflow.example.org"),
    )

    parts = platform_parts(settings, Steps())

    assert [part.name for part in parts] == ["worker-training", "worker-light", "relay", "api", "engine"]
    assert all(not part.needs for part in parts)
    assert not is_embedded(settings, "postgres")


def test_the_engine_is_a_part_unless_the_settings_leave_it_out(tmp_path: Path) -> None:
    with_it, without = (
        platform_parts(Settings(data_folder=tmp_path, generation=GenerationSettings(engine=wanted)), Steps())
        for wanted in (True, False)
    )

    assert {part.name for part in with_it} - {part.name for part in without} == {"engine"}
    [engine] = [part for part in with_it if part.name == "engine"]
    [worker] = [part for part in with_it if part.name == "worker-training"]
    assert (engine.needs, engine.niceness) == ((), worker.niceness)
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "TMPDIR", "HF_HUB_OFFLINE"):
        assert engine.environment.get(name) == worker.environment.get(name)


def test_the_engine_knows_no_secret_setting(tmp_path: Path) -> None:
    secret = SecretStr("of the operator")
    settings = Settings(
        data_folder=tmp_path, prefect=PrefectSettings(auth=secret), comfyui=ComfyuiSettings(secret=secret)
    )

    assert secret.get_secret_value() not in shared_environment(settings, "engine").values()
    assert "DARKROOM_POSTGRES__URL" not in shared_environment(settings, "engine")
    assert shared_environment(settings, "worker-light")["DARKROOM_COMFYUI__SECRET"] == secret.get_secret_value()


def test_every_need_of_a_part_is_a_part(tmp_path: Path) -> None:
    parts = platform_parts(Settings(data_folder=tmp_path), Steps(deploy_needed=True))

    names = [part.name for part in parts]
    for part in parts:
        assert set(part.needs) <= set(names[: names.index(part.name)]), part.name


def test_what_workers_and_flows_keep_for_a_while_is_in_the_data_folder_unless_its_sockets_would_not_fit() -> None:
    short, long = Settings(data_folder=Path("/srv/darkroom")), Settings(data_folder=Path("/srv") / ("d" * 70))

    assert flow_environment(short)["TMPDIR"] == "/srv/darkroom/tmp"
    assert "TMPDIR" not in flow_environment(long)
