"""The list of commands, and what every command has in common."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployments.cli import COMMANDS, EXTRAS, app, load
from tests.extras import environment_of

HEAVY = ("torch", "diffusers", "transformers", "mlflow", "prefect", "litestar", "fastapi")


@pytest.mark.parametrize("name", COMMANDS)
def test_the_summary_in_the_list_is_the_commands_own(name: str) -> None:
    command = load(name)

    assert command.help is not None
    assert command.help.split("\n\n")[0].replace("\n", " ").removesuffix(
        " Exits with 1 when something is not healthy."
    ) == COMMANDS[name].summary.removesuffix(" Exits with 1 when something is not healthy.")


def test_the_list_of_commands_comes_in_under_a_second_and_imports_nothing_heavy() -> None:
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "deployments.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in listed.stderr.splitlines()}

    assert all(name in listed.stdout for name in COMMANDS)
    assert imported.isdisjoint({*HEAVY, "psycopg", "httpx", "storage.settings"})
    # Of a core, since a busy machine keeps it waiting for others: it takes 0.2 s.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - used < 1.0
    assert time.monotonic() - began < 5.0


def test_no_command_but_those_that_do_a_flows_work_or_switch_flows_loads_a_heavy_library() -> None:
    program = "from deployments.cli import COMMANDS, load; work = {'backfill', 'backup', 'check', 'pause',"
    program += " 'rebuild', 'restore', 'resume', 'run'}"
    program += "; [load(name) for name in {*COMMANDS} - work]"
    program += "; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert set(loaded.stdout.split()).isdisjoint(HEAVY)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jobs", "list"], "there is no API key"),
        (["train", ".", "mug"], "no photos in"),
        (["base", "list"], "Is the platform up?"),
        (["key", "list"], "Is the platform up?"),
        (["notifications", "status"], "Is the platform up?"),
        (["check"], "Is the platform up?"),
        (["backup", "/tmp/nowhere"], "Is the platform up?"),
        (["backup", "verify", "/tmp/nowhere"], "There is no folder /tmp/nowhere"),
        (["restore", "/tmp/nowhere"], "There is no folder /tmp/nowhere"),
        (["rebuild"], "Is the platform up?"),
    ],
)
def test_without_a_platform_every_command_says_how_to_start_it(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path / "none"))
    monkeypatch.chdir(tmp_path)

    result = CliRunner().invoke(app, arguments)

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_an_api_that_does_not_respond_is_told_with_how_to_start_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARKROOM_DATA_FOLDER", str(tmp_path))
    monkeypatch.setenv("DARKROOM_API__KEY", "drk_0_0")
    monkeypatch.setenv("DARKROOM_API__PORT", "9")

    result = CliRunner().invoke(app, ["jobs", "list"])

    assert result.exit_code == 1
    assert "the API at http://127.0.0.1:9 does not respond" in result.output
    assert "darkroom up --detach" in result.output


def test_a_mistyped_command_is_a_usage_error_with_the_nearest_name() -> None:
    result = CliRunner().invoke(app, ["trian"])

    assert result.exit_code == 2
    assert "Did you mean 'train'" in result.output


def completed(words: str, number: int, **variables: str) -> subprocess.CompletedProcess[str]:
    """What the completion prints for word `number` of a line."""
    return subprocess.run(
        [sys.executable, "-c", "from deployments.cli import app; app(prog_name='darkroom')"],
        env={"_DARKROOM_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_shell_completes_commands_and_those_of_a_group() -> None:
    assert "train" in completed("darkroom ", 1).stdout.split()
    assert "cancel" in completed("darkroom jobs ", 2).stdout.split()


def test_the_shell_completes_no_group_whose_extra_is_missing_and_shows_no_error(tmp_path: Path) -> None:
    without = environment_of(tmp_path / "hidden")
    assert "backup" in completed("darkroom ", 1, **without).stdout.split()
    answer = completed("darkroom backup ", 2, **without)
    assert (answer.stdout.strip(), answer.stderr) == ("", "")


LOADS_EACH = """
from deployments.cli import COMMANDS, ExtraMissing, load
for name in COMMANDS:
    try:
        load(name)
    except ExtraMissing as error:
        print(name, str(error).partition("Install darkroom[")[2].partition("]")[0])
"""


@pytest.mark.parametrize("extras", [(), ("api",), ("worker",)])
def test_a_command_whose_libraries_are_not_installed_says_which_extra_it_needs(
    extras: tuple[str, ...], tmp_path: Path
) -> None:
    environment = {**os.environ, **environment_of(tmp_path / "hidden", *extras)}
    done = subprocess.run(
        [sys.executable, "-c", LOADS_EACH], env=environment, capture_output=True, text=True, check=False
    )

    assert done.stderr == ""
    lacking = {name: [one for one in place.extras if one not in extras] for name, place in COMMANDS.items()}
    assert dict(line.split() for line in done.stdout.splitlines()) == {
        name: ",".join(missing) for name, missing in lacking.items() if missing
    }


NEED_IT_WHEN_RUN = {"demo", "up", "down", "status", "base", "sql"}
"""Commands whose modules are imported without their extras: they start, read or ask what needs them."""
IMPORTS_EACH = """
from importlib import import_module
from deployments.cli import COMMANDS
for name, place in COMMANDS.items():
    try:
        import_module("deployments.commands." + place.where.partition(":")[0])
    except ImportError:
        continue
    print(name)
"""


def test_no_command_asks_for_an_extra_that_it_does_without(tmp_path: Path) -> None:
    environment = {**os.environ, **environment_of(tmp_path / "hidden")}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS_EACH], env=environment, capture_output=True, text=True, check=True
    )
    assert {*done.stdout.split()} == {name for name, place in COMMANDS.items() if not place.extras} | NEED_IT_WHEN_RUN


def test_what_starts_every_part_needs_every_extra() -> None:
    assert {name for name, place in COMMANDS.items() if {*place.extras} == {*EXTRAS}} == {"demo", "up"}


def test_a_missing_extra_is_a_message_and_status_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deployments.cli", "rebuild", "--help"]
    environment = {**os.environ, **environment_of(tmp_path / "hidden", "api")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: darkroom rebuild needs libraries that are not installed here.")
    assert "pip install 'darkroom[worker]'" in done.stderr
