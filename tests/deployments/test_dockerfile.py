"""The two images, as their file says: it is read, since no container engine builds it here."""

from __future__ import annotations

import re
import shlex
import tomllib
from functools import cache
from typing import Any

import pytest
import yaml

from deployments.cli import COMMANDS
from deployments.local.environment import NO_TELEMETRY, PROJECT
from tests.architecture.source_tree import PACKAGES
from tests.deployments.test_compose import OURS, SERVICES
from tests.extras import MODELS_AND_PIPELINES, declared, installed_by

FILE = PROJECT / "deployments" / "Dockerfile"
PACKAGES_OF = {"api": {"storage", "platform_api", "deployments"}, "worker": {"storage", "flows", "deployments"}}
"""What each image has of our code: the API's has no flows, and the worker's no routes."""
WORDS = {"FROM", "RUN", "WORKDIR", "ENV", "COPY", "USER"}


@cache
def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage with their words, behind those of the stage that it starts from."""
    text = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", FILE.read_text(), flags=re.MULTILINE))
    found: dict[str, list[tuple[str, str]]] = {}
    steps: list[tuple[str, str]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, words = line.partition(" ")
        assert instruction in WORDS, line
        if instruction == "FROM":
            image, _, name = words.partition(" AS ")
            steps = found[name] = list(found.get(image, []))
        steps.append((instruction, words))
    return found


def lines_of(stage: str, instruction: str) -> list[str]:
    """The words of each such instruction of a stage."""
    return [words for word, words in stages()[stage] if word == instruction]


def programs_of(stage: str) -> list[list[str]]:
    """The programs that building a stage runs, with their words."""
    return [shlex.split(part) for words in lines_of(stage, "RUN") for part in words.split("&&")]


def extras_of(stage: str) -> set[str]:
    """The extras that a stage installs."""
    (wanted,) = re.findall(r"'\.\[([\w,]+)\]'", " ".join(lines_of(stage, "RUN")))
    return set(wanted.split(","))


def test_there_are_two_images_and_each_installs_its_extra() -> None:
    assert set(stages()) == {"base", "api", "worker"}
    assert extras_of("api") == {"api", "s3"}
    assert extras_of("worker") == {"worker", "s3", "trackers"}
    assert all(declared(*extras_of(stage)) for stage in PACKAGES_OF)


def test_each_extra_is_in_an_image_and_the_page_of_servers_says_in_which() -> None:
    text = " ".join((PROJECT / "docs" / "how-to" / "production.md").read_text().split())
    for stage in PACKAGES_OF:
        added = " and ".join(f"`{name}`" for name in sorted(extras_of(stage) - {stage}))
        assert f"`darkroom-{stage}` with {added}" in text
    extras = set(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    assert extras - {"dev"} == extras_of("api") | extras_of("worker")
    assert all(f"`{name}`" in text for name in extras - {"dev"})


def test_the_workers_image_has_every_tracker() -> None:
    """Its container finds out at the start of a training, which fails with what is missing."""
    assert {"tensorboard", "wandb"} <= installed_by(*extras_of("worker"))


def test_nothing_brings_torch_or_prefect_into_the_apis_image() -> None:
    """A package that is installed with what it asks for is in the extra; any other is installed alone."""
    for program in programs_of("api"):
        if program[:2] == ["pip", "install"]:
            assert "--no-deps" in program or ".[api,s3]" in program, program
            assert not {*MODELS_AND_PIPELINES} & {word.partition("=")[0] for word in program}, program
    assert installed_by(*extras_of("api")).isdisjoint(MODELS_AND_PIPELINES)


@pytest.mark.parametrize("stage", PACKAGES_OF)
def test_what_is_copied_is_there_and_no_secret_of_this_machine(stage: str) -> None:
    copied = [word for words in lines_of(stage, "COPY") for word in words.split()[:-1]]

    assert [name for name in copied if not (PROJECT / name).exists()] == []
    assert {*PACKAGES} & {*copied} == PACKAGES_OF[stage]
    assert {".env", "deployments/*.env", ".venv", ".git"}.isdisjoint(copied)
    assert all((PROJECT / name).is_dir() == (target == name) for name, target in map(str.split, pairs(stage)))


def pairs(stage: str) -> list[str]:
    """`SOURCE TARGET` of each COPY of one source."""
    return [words for words in lines_of(stage, "COPY") if len(words.split()) == 2]


@pytest.mark.parametrize("stage", PACKAGES_OF)
def test_exact_versions_are_installed_and_no_process_is_root(stage: str) -> None:
    for program in programs_of(stage):
        if program[:2] == ["pip", "install"] and "--editable" not in program:
            assert program[program.index("--constraint") + 1] == "constraints.txt", program
            assert "--no-cache-dir" in program, program
    assert stages()[stage][-1][0] in ("USER", "ENV")
    assert lines_of(stage, "USER") == ["1000"]
    assert "useradd --system --create-home --uid 1000 darkroom" in lines_of(stage, "RUN")[0]


@pytest.mark.parametrize("stage", PACKAGES_OF)
def test_code_and_standard_library_come_with_bytecode(stage: str) -> None:
    """A container's root is read-only: whatever has none is compiled at every start."""
    compiled = [program[-1] for program in programs_of(stage) if program[:3] == ["python", "-m", "compileall"]]

    (version,) = re.findall(r"^FROM python:(\d+\.\d+)", FILE.read_text(), re.MULTILINE)
    assert compiled == [f"/usr/local/lib/python{version}", "/darkroom"]
    assert lines_of(stage, "WORKDIR") == ["/darkroom"]
    assert all(SERVICES[name]["read_only"] for name in OURS)


@pytest.mark.parametrize("stage", PACKAGES_OF)
def test_a_checkout_that_only_its_owner_may_read_makes_an_image_that_starts(stage: str) -> None:
    """COPY keeps modes, and gives all to root. Bytecode has the mode of its source, so it is written afterwards."""
    words = lines_of(stage, "RUN")[-1]
    assert words.index("find . ! -perm -444 -exec chmod a+rX {} +") < words.index("compileall")


def test_the_workers_image_has_the_compilers_that_a_training_may_ask_for() -> None:
    installed = [program for program in programs_of("worker") if program[:2] == ["apt-get", "install"]]
    assert [program[-1] for program in installed] == ["g++"], "it brings gcc, which Triton calls"
    assert not [program for program in programs_of("api") if program[0] == "apt-get"]


def variables_of(stage: str) -> dict[str, str]:
    """The variables that a stage sets."""
    return dict(word.split("=", 1) for words in lines_of(stage, "ENV") for word in words.split())


def test_variables_are_those_of_the_embedded_platform() -> None:
    worker = variables_of("worker") | SERVICES["prefect"]["environment"]
    assert {name: worker[name] for name in NO_TELEMETRY} == NO_TELEMETRY
    assert set(variables_of("api")) <= {"PYTHONUNBUFFERED", "HF_HUB_OFFLINE", *NO_TELEMETRY}
    assert not [name for name in variables_of("api") if name.startswith(("PREFECT_", "MLFLOW_", "DARKROOM_"))]


def images() -> dict[str, str]:
    """The stage that each service of ours runs, by the name of its image."""
    ours = {name: one["image"] for name, one in SERVICES.items() if one["image"].startswith("darkroom-")}
    return {name: image.removeprefix("darkroom-").partition(":")[0] for name, image in ours.items()}


def test_the_api_alone_runs_its_image_and_what_compose_builds_is_the_target_of_the_name() -> None:
    assert {name for name, stage in images().items() if stage == "api"} == {"api"}
    assert set(images()) == {*OURS, "engine", "prefect", "mlflow"}
    for name, stage in images().items():
        build: dict[str, Any] | None = SERVICES[name].get("build")
        wanted = {"context": "..", "dockerfile": "deployments/Dockerfile", "target": stage}
        assert build == wanted or (name == "mlflow" and build is None), name
    assert len({image.rpartition(":")[2] for image in map(image_of, images())}) == 1, "one version of all"


def image_of(service: str) -> str:
    """The image of a service, with its tag."""
    return str(SERVICES[service]["image"])


def test_what_a_service_runs_is_in_its_image() -> None:
    for name, stage in images().items():
        command = SERVICES[name]["command"]
        for module in (word.partition(":")[0] for word in command if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+(:\w+)?", word)):
            assert module.partition(".")[0] in PACKAGES_OF[stage], (name, module)
            path = PROJECT / module.replace(".", "/")
            assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), (name, module)
        if command[0] == "darkroom":
            assert set(COMMANDS[command[1]].extras) <= extras_of(stage), name
        if "uvicorn" in command or command[0] in ("prefect", "uvicorn"):
            server = "prefect" if command[0] == "prefect" else "uvicorn"
            assert server in installed_by(*extras_of(stage)), name


def test_the_comments_build_each_image_by_the_name_that_compose_gives_it() -> None:
    shown = re.findall(r"^#   docker build .*--target (\w+) --tag (\S+) \.$", FILE.read_text(), re.MULTILINE)
    assert {(stage, image_of(name)) for name, stage in images().items()} == set(shown)


def test_the_folder_that_is_sent_to_the_builder_has_no_second_copy_of_the_code() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().splitlines()
    assert {".git", ".venv", "**/__pycache__"} <= {*ignored}
    assert yaml.safe_load((PROJECT / "deployments" / "compose.yaml").read_text())["services"]["api"]["build"]
