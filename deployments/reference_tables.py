"""The other generated parts of docs/: commands, routes, errors, flows, job states, choices, import contracts, areas."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from enum import EnumType, StrEnum
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from deployments.cli import COMMANDS, load
from platform_api.app import create_app
from platform_api.http.problem_list import ERRORS
from platform_api.openapi import described, scope_of
from storage.orchestration_settings import OrchestrationSettings
from storage.records.jobs.choices import (
    Choice,
    GenerationBackend,
    LearningRateSchedule,
    ModelFamily,
    TrackerName,
    TrainingMethod,
    TrainingOptimizer,
)
from storage.records.jobs.jobs import TRANSITIONS
from storage.records.notifications.channels import Channel
from storage.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
METHODS = ("get", "head", "post", "put", "patch", "delete")
AREAS = {
    "policy": "who may see or do what",
    "events": "the outbox, changes, what wakes a waiting process",
    "accounts": "accounts, API keys, quotas",
    "jobs": "jobs and what they need: data sets, base models",
    "generation": "drawing: what can be asked for, prompts, schedulers, what is in a picture",
    "orchestration": "Civitai's orchestration v2 in front of generations",
    "catalog": "models, versions, files, images, uploads",
    "search": "indexes, documents, queries",
    "social": "follows, reactions, comments",
    "moderation": "take-downs and bans",
    "notifications": "what a reader is notified of, and how",
    "metrics": "activity, rollups, leaderboards, freshness",
    "upkeep": "backup, retention, comparison of the stores, pauses, health",
}
"""What each area is about, in the order in which the architecture page lists them."""
AREA_FOLDERS = ("storage/records", "storage/postgres", "flows", "platform_api", "deployments/commands")
OTHER_NAMES = {
    ("flows", "events"): "relay",
    ("flows", "jobs"): "jobs`, `training`, `diffusion",
    ("flows", "search"): "indexing",
    ("platform_api", "policy"): "access",
}
"""Where a package has another name for an area: flows are verbs, and the API asks the policy in `access`."""


CHOICES: Sequence[tuple[str, str, type[Choice] | type[Channel]]] = (
    ("Model families", "flows/diffusion/families", ModelFamily),
    ("Training methods", "flows/training/methods", TrainingMethod),
    ("Optimizers", "flows/training/optimizers", TrainingOptimizer),
    ("Learning-rate schedules", "flows/training/optimizers/learning_rates.py", LearningRateSchedule),
    ("Generation backends", "flows/generation/backends", GenerationBackend),
    ("Trackers beside MLflow", "flows/training/tracking", TrackerName),
    ("Notification channels", "flows/notifications/channels", Channel),
)
"""What a request, a base model or a setting can name."""


def table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    # chr(92) is a backslash, which may not stand in an f-string's braces before Python 3.12.
    return "\n".join([*lines, *(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows)])


def commands() -> str:
    """A section for every command of `darkroom`: what it does, its arguments and options."""
    return "\n\n".join(part for name in COMMANDS for part in _command(name, load(name), ROOT_COMMAND))


ROOT_COMMAND = "darkroom"


def _command(name: str, command: TyperCommand | TyperGroup, above: str) -> Iterator[str]:
    typed = f"{above} {name}"
    level = "##" if above == ROOT_COMMAND else "###"
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    usage = " ".join([typed, *(_shown_argument(one) for one in arguments)])
    subcommands = command.commands if isinstance(command, TyperGroup) else {}
    usage += " COMMAND" if subcommands else ""
    yield f"{level} {typed}\n\n`{usage}`\n\n{_paragraphs(command.help or '')}"
    options = [one for one in command.params if isinstance(one, TyperArgument | TyperOption) and one.name != "help"]
    if options:
        yield table(("argument or option", "default", "meaning"), (_parameter(one) for one in options))
    for inner, subcommand in subcommands.items():
        yield from _command(inner, cast("TyperCommand", subcommand), typed)


def _shown_argument(argument: TyperArgument) -> str:
    text = (argument.metavar or str(argument.name)).upper().strip("[]{}")
    text += "..." if argument.nargs == -1 else ""
    return text if argument.required else f"[{text}]"


def _parameter(one: TyperArgument | TyperOption) -> tuple[str, str, str]:
    names = [*one.opts, *one.secondary_opts] if isinstance(one, TyperOption) else [_shown_argument(one)]
    default = one.default
    shown = default not in (None, False, (), []) and not callable(default)
    kind = one.type_descriptor.annotation
    offered = f"One of: {', '.join(kind)}." if isinstance(kind, EnumType) and issubclass(kind, StrEnum) else ""
    help_text = one.help or ""
    meaning = help_text if "One of: " in help_text else f"{help_text} {offered}"
    return ", ".join(f"`{name}`" for name in names), f"`{default}`" if shown else "", " ".join(meaning.split())


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.replace("\b", "").split("\n\n"))


@cache
def api_document() -> dict[str, Any]:
    """The OpenAPI document of the API as it is; making it takes seconds."""
    with tempfile.TemporaryDirectory() as folder:
        # With the routes that a setting switches on: their tag says so.
        switched_on = OrchestrationSettings(enabled=True)
        return described(create_app(Settings(data_folder=Path(folder), orchestration=switched_on)))


def routes() -> str:
    """Every route of the API with the scope that a key needs, by the document's tags."""
    document = api_document()
    groups: dict[str, list[tuple[str, str, str]]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in sorted(document["paths"].items()):  # the framework keeps them in sets
        for method in METHODS:
            if method in item:
                groups[item[method]["tags"][0]].append(_route(method, path, item[method]))
    head = ("route", "what it does", "scope")
    return "\n\n".join(f"### {name}\n\n{table(head, iter(found))}" for name, found in groups.items() if found)


def _route(method: str, path: str, operation: dict[str, Any]) -> tuple[str, str, str]:
    scope, optional = scope_of(operation)
    stated = "none" if scope is None else f"`{scope}`" + (" for your own" if optional else "")
    return f"`{method.upper()} {path}`", operation["summary"], stated


def errors() -> str:
    """Every error code with its status, what it means and what a client does about it."""
    rows = ((str(status), f"`{code}`", *texts) for status, codes in ERRORS.items() for code, texts in codes.items())
    return table(("status", "code", "meaning", "what to do"), rows)


def flows() -> str:
    """Every deployment of prefect.yaml with its work pool and its schedules."""
    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    rows = (
        (
            f"`{one['name']}`",
            one["work_pool"]["name"],
            ", ".join(_schedule(schedule) for schedule in one.get("schedules", [])),
            " ".join(one["description"].split()),
        )
        for one in deployments
    )
    return table(("flow", "work pool", "schedule (UTC)", "what it does"), rows)


def _schedule(schedule: dict[str, Any]) -> str:
    return f"`{schedule['cron']}`" if "cron" in schedule else f"every {schedule['interval']:g} s"


def job_states() -> str:
    """Every move of a job from one state to another, and who makes it."""
    rows = ((old.value, new.value, ", ".join(sorted(who))) for (old, new), who in TRANSITIONS.items())
    return table(("from", "to", "moved by"), rows)


def choices() -> str:
    """A table for each of the mappings that requests name something of: what there is, and the file that does it."""
    return "\n\n".join(
        f"## {title}\n\n"
        + table(("name", "what it is", "file"), ((f"`{name}`", name.about, _file(folder, name)) for name in names))
        for title, folder, names in CHOICES
    )


def _file(folder: str, name: str) -> str:
    # A folder has a file for each name, or one file does them all.
    file = folder if folder.endswith(".py") else f"{folder}/{name}.py"
    return f"`{file}`" if (ROOT / file).is_file() else "the database"


def contracts() -> str:
    """The import contracts that `make check` enforces, by name."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return "\n".join(f"- {one['name']}" for one in pyproject["tool"]["importlinter"]["contracts"])


def areas() -> str:
    """Packages by areas: which folder of a package holds which area."""
    rows = ((f"**{area}**", about, *(_area(folder, area) for folder in AREA_FOLDERS)) for area, about in AREAS.items())
    return table(("area", "about", *(f"`{folder}`" for folder in AREA_FOLDERS)), rows)


def _area(folder: str, area: str) -> str:
    name = OTHER_NAMES.get((folder, area), area)
    found = all((ROOT / folder / part).is_dir() for part in re.findall(r"\w+", name))
    return f"`{name}`" if found else ""
