"""compose.yaml: the same platform on real servers. It is read, and its scripts are run without a container engine."""

from __future__ import annotations

import base64
import hashlib
import hmac
import importlib.util
import json
import os
import re
import subprocess
from configparser import ConfigParser
from ipaddress import ip_address, ip_network
from pathlib import Path, PurePosixPath
from typing import Any

import psycopg
import pytest
import yaml

from deployments.local.environment import (
    NO_TELEMETRY,
    PROJECT,
    mlflow_hosts,
    mlflow_origins,
    prefect_retention_environment,
)
from deployments.local.parts import Steps, is_embedded, platform_parts
from deployments.local.servers.postgres import EmbeddedPostgres, programs_folder
from deployments.local.servers.valkey import VALKEY_RIGHTS
from flows.upkeep.retention.folder_rules import COMPILED
from storage.embedded_servers import VALKEY_USER
from storage.settings import Settings

COMPOSE = PROJECT / "deployments" / "compose.yaml"
TEXT = COMPOSE.read_text()
EXAMPLE = (PROJECT / "deployments" / "compose.env.example").read_text()
DOCUMENT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
OURS = ("api", "relay", "worker-training", "worker-light", "prepare", "restore")
WITHOUT_PREFECT = {"api", "restore"}
STORES = ("postgres", "valkey", "objects", "elasticsearch")
ADDRESSES = {
    *("API_PUBLIC_URL", "PREFECT_PUBLIC_URL", "MLFLOW_PUBLIC_URL", "S3_ACCESS_KEY"),
    *("API_TRUSTED_PROXIES", "BACKUP_DESTINATION"),
}
OF_STORES = {"DARKROOM_DB_PASSWORD", "DARKROOM_VALKEY_PASSWORD", "ELASTIC_PASSWORD", "S3_SECRET_KEY"}
OF_LINKS = {"SIGNING_KEY", "PREVIOUS_SIGNING_KEY"}
OF_ADDRESSES = {"SEALING_KEY", "PREVIOUS_SEALING_KEY"}
OF_DUMPS = {"MLFLOW_DB_PASSWORD", "PREFECT_DB_PASSWORD"}
MAY_BE_EMPTY = {"PREVIOUS_SIGNING_KEY", "PREVIOUS_SEALING_KEY", "SMTP_PASSWORD"}
VARIABLE = r"\$\{(\w+)(:?)\?\}"
"""A variable that compose.env must name, and with a colon give a value to."""
POOLS_OF_DOCKER = ("172.16.0.0/12", "192.168.0.0/16")
NEEDED = {
    "postgres": {"POSTGRES_PASSWORD", "DARKROOM_DB_PASSWORD", "PREFECT_DB_PASSWORD", "MLFLOW_DB_PASSWORD"},
    "valkey": {"VALKEY_PASSWORD", "DARKROOM_VALKEY_PASSWORD"},
    "objects": {"S3_SECRET_KEY"},
    "elasticsearch": {"ELASTIC_PASSWORD"},
    "prefect": {"PREFECT_SECRET", "PREFECT_DB_PASSWORD", "VALKEY_PASSWORD"},
    "mlflow": {"MLFLOW_SECRET", "MLFLOW_DB_PASSWORD"},
    "prepare": OF_STORES | {"PREFECT_SECRET"},
    "api": OF_STORES | OF_LINKS | OF_ADDRESSES,
    "relay": OF_STORES | {"PREFECT_SECRET"},
    "worker-training": OF_STORES | OF_LINKS | {"PREFECT_SECRET", "MLFLOW_SECRET"},
    "worker-light": OF_STORES
    | OF_LINKS
    | OF_ADDRESSES
    | OF_DUMPS
    | {"PREFECT_SECRET", "MLFLOW_SECRET", "SMTP_PASSWORD"},
    "restore": OF_STORES | OF_DUMPS,
    "engine": {"S3_SECRET_KEY"},
}


def filled(value: str) -> str:
    """A value with every ${NAME:?} replaced, as compose does it."""
    value = value.replace("${API_TRUSTED_PROXIES:?}", '["10.1.2.0/24"]')
    return re.sub(VARIABLE, r"https://\1", value)


def test_every_part_of_the_embedded_platform_has_its_service() -> None:
    embedded = {part.name for part in platform_parts(Settings(), Steps())} - {"deploy"}

    assert embedded | {"objects", "elasticsearch", "prepare", "restore"} == set(SERVICES)


@pytest.mark.parametrize("service", OURS)
def test_a_service_of_ours_knows_every_store_and_misspells_no_setting(
    service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = SERVICES[service]["environment"]
    known = set(settings_names(Settings()))
    ours = {name: filled(value) for name, value in environment.items() if name.startswith("DARKROOM_")}
    assert set(ours) <= known
    for name, value in ours.items():
        monkeypatch.setenv(name, value)

    settings = Settings()

    for store in ("postgres", "redis", "prefect", "mlflow"):
        assert not is_embedded(settings, store), store
    assert settings.blobs.url.startswith("s3://")
    if service not in WITHOUT_PREFECT:
        assert environment["PREFECT_API_URL"] == settings.prefect.api_url
        assert environment["PREFECT_API_AUTH_STRING"] == environment["DARKROOM_PREFECT__AUTH"]


def settings_names(settings: Settings) -> list[str]:
    """Every variable that the settings read."""
    names: list[str] = []
    for group, value in settings:
        fields = getattr(type(value), "model_fields", None)
        names += [f"DARKROOM_{group}__{field}".upper() for field in fields] if fields else [f"DARKROOM_{group}".upper()]
    return names


def test_the_api_believes_the_proxy_and_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {name for name, one in SERVICES.items() if "DARKROOM_API__TRUSTED_PROXIES" in one.get("environment", {})}
    assert told == {"api"}
    monkeypatch.setenv(
        "DARKROOM_API__TRUSTED_PROXIES", filled(SERVICES["api"]["environment"]["DARKROOM_API__TRUSTED_PROXIES"])
    )
    assert Settings().api.trusted_proxies == ["10.1.2.0/24"]
    [example] = re.findall(r"^API_TRUSTED_PROXIES='(.*)'$", EXAMPLE, re.MULTILINE)
    [outside] = DOCUMENT["networks"]["outside"]["ipam"]["config"]
    assert json.loads(example) == [outside["gateway"]], "a proxy on this host is believed from the first start on"
    assert ip_address(outside["gateway"]) in ip_network(outside["subnet"])
    assert "${API_TRUSTED_PROXIES:?}" in TEXT


def test_the_light_worker_backs_up_all_that_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = SERVICES["worker-light"]
    for name, value in worker["environment"].items():
        if name.startswith("DARKROOM_"):
            monkeypatch.setenv(name, filled(value))
    settings = Settings()
    backup = settings.backup
    assert backup.destination == "https://BACKUP_DESTINATION"
    for name, url in (("prefect", backup.prefect_database), ("mlflow", backup.mlflow_database)):
        password = f"https://{name.upper()}_DB_PASSWORD"
        assert url.get_secret_value() == f"postgresql://{name}:{password}@postgres:5432/{name}"
    assert backup.mlflow_artifacts == SERVICES["mlflow"]["environment"]["_MLFLOW_SERVER_ARTIFACT_DESTINATION"]
    assert backup.key_file.startswith("/backups/")
    [destination] = re.findall("^BACKUP_DESTINATION=(.*)$", EXAMPLE, re.MULTILINE)
    assert destination.startswith("/backups/")
    image = (PROJECT / "deployments" / "Dockerfile").read_text()
    assert "/backups" in image, "a new volume is the account's that the image's folder is"
    told = {name for name, one in SERVICES.items() if "DARKROOM_BACKUP__" in json.dumps(one)}
    assert told == {"worker-light", "restore"}


def test_a_restore_has_all_that_a_backup_had_and_only_the_stores_run() -> None:
    service, worker = SERVICES["restore"], SERVICES["worker-light"]
    backed_up = {name: value for name, value in worker["environment"].items() if name.startswith("DARKROOM_BACKUP__")}
    assert {name: service["environment"].get(name) for name in backed_up} == backed_up
    assert service["profiles"] == ["restore"], "`up` starts it never"
    assert set(service["depends_on"]) == {"postgres", "objects", "elasticsearch"}, "Prefect's database must be empty"
    assert "mlflow:/artifacts" in service["volumes"]
    folder = PurePosixPath(service["environment"]["DARKROOM_DATA_FOLDER"])
    mounts = {volume.split(":")[1] for volume in service["volumes"]} | set(service["tmpfs"])
    assert str(folder) not in mounts, "a mount point cannot take another folder's name"
    assert str(folder.parent) in mounts
    assert SERVICES["prepare"]["environment"]["DARKROOM_DATA_FOLDER"] == str(folder), "it finds the restored owner.key"
    assert "darkroom:/data" in SERVICES["prepare"]["volumes"]


def test_no_secret_has_a_value_and_every_image_has_an_exact_tag() -> None:
    asked = set(re.findall(VARIABLE, TEXT))
    secrets = {name for name, _ in asked}

    assert "$" not in re.sub(rf"{VARIABLE}|\$\$", "", TEXT), "every variable is asked for, none has a default"
    assert {name for name, colon in asked if not colon} == MAY_BE_EMPTY
    assert len(asked) == len(secrets)
    assert secrets == set(re.findall(r"^(\w+)=", EXAMPLE, re.MULTILINE))
    assert {name for name, value in re.findall(r"^(\w+)=(.*)$", EXAMPLE, re.MULTILINE) if not value} == {
        name for name in secrets if name.endswith(("PASSWORD", "SECRET", "_SECRET_KEY", "SIGNING_KEY", "SEALING_KEY"))
    }
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:v?\d+\.\d[\w.-]*(@sha256:[0-9a-f]{64})?", service["image"]), name
    assert ":latest" not in TEXT


def test_no_secret_is_on_a_command_line_or_where_it_is_not_needed() -> None:
    for name, service in SERVICES.items():
        words = json.dumps([service.get("command"), service.get("healthcheck")])
        assert "${" not in words, name
        known = {
            variable for variable, _ in re.findall(VARIABLE, json.dumps(service.get("environment", {})))
        } - ADDRESSES
        assert known <= NEEDED[name], f"{name} need not know {known - NEEDED[name]}"


def test_prefect_deletes_its_old_rows_as_on_one_machine() -> None:
    ours = prefect_retention_environment(Settings())
    assert {name: SERVICES["prefect"]["environment"].get(name) for name in ours} == ours


def test_only_what_people_use_is_published_and_on_the_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"api", "prefect", "mlflow"}
    assert all(port.startswith("127.0.0.1:") for ports in published.values() for port in ports)


def test_a_service_shares_a_network_with_those_alone_that_it_works_with() -> None:
    workers = {"worker-training", "worker-light"}
    clients = {"restore", "api", "relay", *workers}

    assert neighbours("postgres") - {"valkey"} == {*clients, "prepare", "prefect", "mlflow"}
    assert neighbours("valkey") - {"postgres"} == {"api", "relay", "prepare", "prefect", *workers}
    assert neighbours("elasticsearch") == {*clients, "prepare"}
    assert neighbours("objects") == {*clients, "prepare", "engine"}
    assert neighbours("prefect") == {"postgres", "valkey", "prepare", "relay", *workers}
    assert neighbours("mlflow") == {"postgres", *workers}


def neighbours(service: str) -> set[str]:
    """Who reaches the service, on whatever port: a name is known to all that share a network with it."""
    own = set(SERVICES[service]["networks"])
    return {name for name, one in SERVICES.items() if own & set(one["networks"])} - {service}


def test_the_api_and_who_sends_mail_have_a_way_out_and_nobody_else() -> None:
    networks: dict[str, dict[str, Any]] = DOCUMENT["networks"]
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    shut = {name for name, one in networks.items() if one.get("driver_opts", {}).get(masquerade) == "false"}

    assert {name for name, one in networks.items() if not one.get("internal")} == {"outside"} | shut
    assert {name for name, one in SERVICES.items() if "outside" in one["networks"]} == {"api", "worker-light"}
    published = {name: set(one["networks"]) & (shut | {"outside"}) for name, one in SERVICES.items() if "ports" in one}
    assert all(published.values()), "a port is published from a network that is not internal"


def test_each_database_has_a_role_of_its_own_and_no_service_is_the_superuser() -> None:
    script = (COMPOSE.parent / DOCUMENT["configs"]["databases"]["file"]).read_text()

    for name in ("darkroom", "prefect", "mlflow"):
        variable = f"{name.upper()}_DB_PASSWORD"
        assert SERVICES["postgres"]["environment"][variable] == f"${{{variable}:?}}"
        assert f"\\getenv {name}_password {variable}\n" in script
        assert f"create role {name} login password :'{name}_password';" in script
        assert f"create database {name} owner {name};" in script
        assert f"${{{name.upper()}_DB_PASSWORD:?}}@postgres:5432/{name}\n" in TEXT
    assert "revoke connect on database postgres, darkroom, prefect, mlflow from public;" in script
    assert [name for name, one in SERVICES.items() if "${POSTGRES_PASSWORD" in json.dumps(one)] == ["postgres"]


def test_the_words_at_the_top_name_the_cores_that_the_limits_need() -> None:
    """Docker makes no container whose limit is above the machine's cores."""
    cores = max(float(one["deploy"]["resources"]["limits"]["cpus"]) for one in SERVICES.values())

    assert f"a machine with {cores:.0f} cores" in TEXT.split("\nname: ")[0]


def test_another_line_of_code_or_of_compose_installs_nothing_once_more() -> None:
    lines = (PROJECT / "deployments" / "Dockerfile").read_text().splitlines()
    installs = next(number for number, line in enumerate(lines) if "--constraint constraints.txt" in line)
    copied = {word for line in lines[:installs] if line.startswith("COPY") for word in line.split()[1:-1]}

    assert copied == {"pyproject.toml", "constraints.txt"}
    assert "deployments/compose*.yaml" in (PROJECT / ".dockerignore").read_text().splitlines()


def test_compose_writes_no_file_into_a_container() -> None:
    """It writes a config with `content` there as the container is made, and a read-only root refuses it."""
    for name, config in DOCUMENT["configs"].items():
        assert set(config) == {"file"}, name
        assert (COMPOSE.parent / config["file"]).is_file(), name


def test_mlflows_accounts_are_in_its_database_and_their_file_holds_no_secret() -> None:
    accounts = ConfigParser()
    accounts.read(COMPOSE.parent / DOCUMENT["configs"]["mlflow"]["file"])
    mlflow = SERVICES["mlflow"]["environment"]

    assert accounts["mlflow"]["database_uri"] == mlflow["_MLFLOW_SERVER_FILE_STORE"]
    assert accounts["mlflow"]["default_permission"] == "NO_PERMISSIONS"
    assert ":" not in accounts["mlflow"]["database_uri"].split("://")[1].split("@")[0]
    assert mlflow["PGPASSWORD"] == "${MLFLOW_DB_PASSWORD:?}"


def test_the_network_that_has_addresses_of_its_own_is_none_that_docker_gives_to_others() -> None:
    """Its own networks among them: after a few `up` and `down` one of those had the addresses, and no `up` worked."""
    (outside,) = DOCUMENT["networks"]["outside"]["ipam"]["config"]

    assert not [pool for pool in POOLS_OF_DOCKER if ip_network(outside["subnet"]).overlaps(ip_network(pool))]


def test_postgres_is_healthy_only_when_it_listens_on_its_port() -> None:
    """While it makes the databases it listens on its socket alone: who starts then finds neither port nor database."""
    check = SERVICES["postgres"]["healthcheck"]["test"][1]
    made = re.findall(
        r"^create database (\w+) owner (\w+);", (COMPOSE.parent / "databases.sql").read_text(), re.MULTILINE
    )

    assert "--host 127.0.0.1 " in check
    assert f"--username {made[-1][1]} " in check, "the last one that is made is there when all are"
    assert made[-1][0] == made[-1][1], "psql asks for the database of the role's name"


def test_the_script_of_the_databases_takes_any_password(short_folder: Path) -> None:
    secrets = {f"{name.upper()}_DB_PASSWORD": f"{name}' \"$x`y\\" for name in ("darkroom", "prefect", "mlflow")}
    with EmbeddedPostgres(short_folder / "compose", durable=False).serving() as server:
        command = [
            programs_folder() / "psql",
            "--no-psqlrc",
            "--set=ON_ERROR_STOP=1",
            "--dbname",
            server.url("postgres"),
        ]
        script = COMPOSE.parent / DOCUMENT["configs"]["databases"]["file"]
        subprocess.run([*command, "--file", script], env={**os.environ, **secrets}, check=True, capture_output=True)
        with psycopg.connect(server.url("mlflow")) as connection:
            [(owner, public)] = connection.execute(
                "select pg_get_userbyid(datdba), has_database_privilege('darkroom', 'mlflow', 'connect')"
                " from pg_database where datname = 'mlflow'"
            ).fetchall()
            [(verifier,)] = connection.execute("select rolpassword from pg_authid where rolname = 'prefect'").fetchall()
    assert (owner, public) == ("mlflow", False)
    assert scram_accepts(verifier, secrets["PREFECT_DB_PASSWORD"])


def scram_accepts(verifier: str, password: str) -> bool:
    """Whether a password is the one of a SCRAM-SHA-256 verifier (RFC 5803)."""
    _, rest, keys = verifier.split("$")
    rounds, salt = rest.split(":")
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    return stored == base64.b64decode(keys.split(":")[0])


def test_what_the_shells_of_compose_write_is_what_their_servers_read() -> None:
    """Each container's script, with its server replaced by what shows what it would read."""
    secrets = {"VALKEYCLI_AUTH": "a1", "DARKROOM_VALKEY_PASSWORD": "b2", "S3_ACCESS_KEY": "c3", "S3_SECRET_KEY": "d4"}
    environment = {"PATH": os.environ["PATH"], **secrets}

    def written(script: str, old: str, new: str) -> str:
        assert old in script
        command = ["sh", "-c", script.replace("$$", "$").replace(old, new)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    settings = written(SERVICES["valkey"]["command"][-1], "exec docker-entrypoint.sh valkey-server -", "cat")
    assert settings.splitlines()[:2] == [
        "requirepass a1",
        f"user {VALKEY_USER} {VALKEY_RIGHTS.format(secret='b2')}",
    ]
    keys = written(
        SERVICES["objects"]["entrypoint"][-1].replace("/tmp/s3.json", "/dev/stdout"), "exec /entrypoint.sh", "true"
    )
    [identity] = json.loads(keys)["identities"]
    assert identity["credentials"] == [{"accessKey": "c3", "secretKey": "d4"}]


def test_what_must_last_is_on_a_volume_and_the_roots_are_read_only() -> None:
    mounted = {name: service.get("volumes", []) for name, service in SERVICES.items()}

    assert {name: volumes for name, volumes in mounted.items() if volumes} == {
        "postgres": ["postgres:/var/lib/postgresql"],
        "valkey": ["valkey:/data"],
        "objects": ["objects:/data"],
        "elasticsearch": ["elasticsearch:/usr/share/elasticsearch/data"],
        "mlflow": ["mlflow:/artifacts"],
        "prepare": ["darkroom:/data"],
        "restore": ["darkroom:/data", "backups:/backups", "mlflow:/artifacts"],
        "api": ["uploads:/data"],
        "worker-training": ["cache:/data"],
        "engine": ["cache:/data", "engine:/data/engine"],
        "worker-light": ["backups:/backups", "mlflow:/artifacts:ro", "engine:/data/engine"],
    }
    assert set(DOCUMENT["volumes"]) == {volume.split(":")[0] for volumes in mounted.values() for volume in volumes}
    assert {name for name, service in SERVICES.items() if not service["read_only"]} == {"elasticsearch"}
    for name, service in SERVICES.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert name in STORES or "cap_add" not in service, name
        assert not {"privileged", "network_mode", "pid", "user"} & set(service), name


def test_every_service_has_limits_and_all_but_the_relay_say_how_they_are() -> None:
    for name, service in SERVICES.items():
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
    silent = {name for name, service in SERVICES.items() if "healthcheck" not in service}

    assert silent == {"prepare", "restore", "relay"}
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            condition = "service_completed_successfully" if needed == "prepare" else "service_healthy"
            assert how == {"condition": condition}, (name, needed)


def test_the_api_ends_in_time_and_prefect_and_mlflow_are_the_guarded_applications() -> None:
    assert "--timeout-graceful-shutdown=10" in SERVICES["api"]["command"]
    assert SERVICES["api"]["stop_grace_period"] == "20s"
    embedded = {part.name: part.command for part in platform_parts(Settings(), Steps())}
    for name in ("prefect", "mlflow"):
        app = next(word for word in embedded[name] if ":" in word)
        assert SERVICES[name]["command"][2:4] == ["uvicorn", app], name
    guards = SERVICES["prefect"]["environment"]
    assert guards["PREFECT_SERVER_API_AUTH_STRING"] == "darkroom:${PREFECT_SECRET:?}"
    assert guards["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert guards["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "${PREFECT_PUBLIC_URL:?}"
    assert SERVICES["elasticsearch"]["environment"]["xpack.security.enabled"] == "true"
    valkey = SERVICES["valkey"]["command"][-1].splitlines()
    assert valkey[1] == "requirepass $$VALKEYCLI_AUTH"
    assert valkey[2] == f"user {VALKEY_USER} {VALKEY_RIGHTS.format(secret='$$DARKROOM_VALKEY_PASSWORD')}"


def test_mlflow_accepts_its_service_and_its_pages_and_lets_its_pages_alone_change_something(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = SERVICES["mlflow"]["environment"]
    assert given["DARKROOM_MLFLOW__UI_URL"] == "${MLFLOW_PUBLIC_URL:?}"
    monkeypatch.setenv("DARKROOM_MLFLOW__URL", given["DARKROOM_MLFLOW__URL"])
    [example] = re.findall("^MLFLOW_PUBLIC_URL=(.*)$", EXAMPLE, re.MULTILINE)
    monkeypatch.setenv("DARKROOM_MLFLOW__UI_URL", example)
    settings = Settings().mlflow

    names = ["127.0.0.1:5000", "localhost:5000", "mlflow.internal.example.org", "mlflow:5000"]
    assert mlflow_hosts(settings) == names
    assert mlflow_origins(settings) == [example]


@pytest.mark.parametrize("service", OURS)
def test_links_lead_to_where_people_reach_prefect_and_mlflow(service: str) -> None:
    given = SERVICES[service]["environment"]
    assert given["DARKROOM_PREFECT__UI_URL"] == "${PREFECT_PUBLIC_URL:?}"
    assert given["DARKROOM_MLFLOW__UI_URL"] == "${MLFLOW_PUBLIC_URL:?}"


def test_every_setting_may_be_a_line_of_one_file_and_no_server_of_others_reads_it() -> None:
    told = {name: service["env_file"] for name, service in SERVICES.items() if "env_file" in service}

    assert set(told) == {*OURS, "engine", "prefect"}
    assert all(files == [{"path": "settings.env", "required": False}] for files in told.values())
    ignored = [(PROJECT / name).read_text().splitlines() for name in (".gitignore", ".dockerignore")]
    assert all("deployments/*.env" in lines for lines in ignored), "secrets come into no commit and no image"


def test_only_who_sends_mail_knows_the_password_of_the_mail_server() -> None:
    assert {name for name, one in SERVICES.items() if "SMTP_PASSWORD" in json.dumps(one)} == {"worker-light"}


def test_logs_are_bounded_and_lines_of_prefects_processes_are_ours() -> None:
    for name, service in SERVICES.items():
        assert service["logging"] == {"driver": "local", "options": {"max-size": "64m", "max-file": "2"}}, name
    told = {name for name, one in SERVICES.items() if "PREFECT_LOGGING_SETTINGS_PATH" in one.get("environment", {})}
    assert told == {"prefect", "prepare", "relay", "worker-training", "worker-light"}


def test_what_prefect_keeps_in_files_is_where_retention_looks() -> None:
    for name in ("worker-training", "worker-light"):
        given = SERVICES[name]["environment"]
        assert given["PREFECT_HOME"] == f"{given['DARKROOM_DATA_FOLDER']}/prefect", name


def test_commands_are_typed_in_the_worker_that_runs() -> None:
    """`run` makes a second worker-light, and before it prepares every store once more, while the platform works."""
    pages = [COMPOSE, *(PROJECT / "docs").rglob("*.md")]

    typed = re.findall(r"docker compose run [^\n`]*", "".join(page.read_text() for page in pages))

    assert typed
    assert not [command for command in typed if re.search(r"\b(worker-\w+|api|relay)\b", command)]


def test_no_service_has_a_key_that_compose_would_not_know() -> None:
    known = {
        *("image", "build", "command", "environment", "configs", "volumes", "tmpfs", "ports", "networks", "depends_on"),
        *("entrypoint", "healthcheck", "restart", "deploy", "read_only", "cap_drop", "cap_add", "security_opt"),
        *("shm_size", "stop_grace_period", "logging", "env_file", "profiles"),
    }

    assert {key for service in SERVICES.values() for key in service} <= known
    top = {key for key in DOCUMENT if not key.startswith("x-")}
    assert top == {"name", "services", "configs", "networks", "volumes"}


def test_the_workers_take_as_many_at_once_as_with_up_and_trainings_have_a_gpu() -> None:
    worker = SERVICES["worker-training"]

    parts = {part.name: part.command for part in platform_parts(Settings(), Steps())}
    for name, limit in (("worker-training", "1"), ("worker-light", "5")):
        assert f"--limit={limit}" in SERVICES[name]["command"]
        assert parts[name][parts[name].index("--limit") + 1] == limit, "as many at once as with `darkroom up`"
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


def test_the_engine_listens_where_the_light_worker_asks_and_has_the_gpu_of_trainings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, light = SERVICES["engine"], SERVICES["worker-light"]
    for service in (engine, light):
        ours = {name: filled(value) for name, value in service["environment"].items() if name.startswith("DARKROOM_")}
        with monkeypatch.context() as patched:
            for name, value in ours.items():
                patched.setenv(name, value)
            socket = Settings().engine_socket
        [volume] = [one for one in service["volumes"] if one.startswith("engine:")]
        assert str(socket.parent) == volume.split(":")[1]
        assert str(socket) in json.dumps(engine["healthcheck"])
    image = (PROJECT / "deployments" / "Dockerfile").read_text()
    assert str(socket.parent) in image, "a new volume is the account's that the image's folder is"
    training = SERVICES["worker-training"]["deploy"]["resources"]["reservations"]
    assert engine["deploy"]["resources"]["reservations"] == training


def test_what_a_training_compiles_is_written_where_it_may_be_loaded_and_is_tidied() -> None:
    """Docker mounts a tmpfs with noexec; torch writes below TMPDIR, Triton below HOME unless they are told where."""
    worker = SERVICES["worker-training"]
    volumes = [PurePosixPath(volume.split(":")[1]) for volume in worker["volumes"]]
    compiled = PurePosixPath(worker["environment"]["DARKROOM_DATA_FOLDER"], "cache", COMPILED)

    assert any(compiled.is_relative_to(volume) for volume in volumes)
    places = {"TORCHINDUCTOR_CACHE_DIR": "torch", "TRITON_CACHE_DIR": "triton"}
    assert {name: PurePosixPath(worker["environment"][name]) for name in places} == {
        name: compiled / place for name, place in places.items()
    }
    assert any(PurePosixPath(worker["environment"]["TMPDIR"]).is_relative_to(volume) for volume in volumes)


def test_modules_that_services_run_exist_and_the_image_sends_no_telemetry() -> None:
    modules = [
        command[command.index("-m") + 1]
        for service in SERVICES.values()
        if "-m" in (command := service.get("command", []))
    ]
    image = (PROJECT / "deployments" / "Dockerfile").read_text()
    prefect = SERVICES["prefect"]["environment"]

    assert all(importlib.util.find_spec(module) for module in modules)
    for name, value in NO_TELEMETRY.items():
        assert f"{name}={value}" in image or prefect.get(name) == value, name
