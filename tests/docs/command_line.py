"""How a command that a page shows compares with what it calls: `darkroom`, make, compose, Python modules."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec

import yaml
from typer.core import TyperArgument, TyperGroup, TyperOption

from deployments.cli import COMMANDS, load
from tests.docs.pages import ROOT, Command

COMPOSE = yaml.safe_load((ROOT / "deployments" / "compose.yaml").read_text())
OPTIONS_WITH_VALUE = ("--file", "--env-file", "--since", "--username", "--format", "-e", "--env")
OF_THE_SYSTEM = ("cp", "rm", "mv", "git", "grep", "jq", ".", "cat", "sha256sum", "openssl", "ssh", "pip", "pre-commit")
"""Programs that are not ours and that no table of ours describes."""


@cache
def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z-]+%?):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))


def wrong_with(command: Command) -> str | None:
    """What is wrong with a command as it is typed, if anything is."""
    words = [word.removeprefix(".venv/bin/") if not place else word for place, word in enumerate(command.words)]
    match words:
        case ["darkroom", *rest]:
            return wrong_with_darkroom(rest)
        case ["make", *rest]:
            return wrong_with_make(rest)
        case ["docker", "compose", *rest]:
            return wrong_with_compose(rest)
        case ["pytest", *paths] if missing := [path for path in paths if not (ROOT / path).exists()]:
            return f"no {missing}"
        case ["python" | "python3", "-m", module, *_]:
            return None if find_spec(module) else f"no module {module}"
        case ["docker", "volume" | "run", *_] | ["prefect" | "mlflow" | "curl", *_] | ["pytest", *_]:
            return None
        case [program, *_]:
            return None if program in OF_THE_SYSTEM else f"no test knows the program {program}"
        case _:
            return "no command"


def wrong_with_darkroom(words: Sequence[str]) -> str | None:
    """What is wrong with the words after `darkroom`."""
    if not words or words[0] not in COMMANDS:
        return f"no command darkroom {words[:1]}"
    command, rest, name = load(words[0]), list(words[1:]), words[0]
    while isinstance(command, TyperGroup):
        if rest and rest[0] in command.commands:
            name, command = f"{name} {rest[0]}", command.commands[rest.pop(0)]
        elif "now" in command.commands:  # darkroom backup PLACE is darkroom backup now PLACE
            name, command = f"{name} now", command.commands["now"]
        else:
            return f"darkroom {name} has no command {rest[:1]}"
    options = {opt: one for one in command.params if isinstance(one, TyperOption) for opt in one.opts}
    arguments = [one for one in command.params if isinstance(one, TyperArgument)]
    given = 0
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            given += 1
        elif word not in options:
            return f"darkroom {name} has no option {word}"
        elif not options[word].is_flag:
            if not rest:
                return f"darkroom {name} {word} lacks its value"
            rest.pop(0)
    least = sum(one.required for one in arguments)
    most = 99 if any(one.nargs == -1 for one in arguments) else len(arguments)
    return None if least <= given <= most else f"darkroom {name} takes {least} to {most} arguments, not {given}"


def wrong_with_make(words: Sequence[str]) -> str | None:
    """What is wrong with the words after `make`."""
    wanted = [word for word in words if "=" not in word]
    unknown = [word for word in wanted if word not in targets() and f"{word.partition('-')[0]}-%" not in targets()]
    return f"make has no target {unknown}" if unknown else None


def wrong_with_compose(words: Sequence[str]) -> str | None:
    """What is wrong with the words after `docker compose`: its services, and what is typed in one of them."""
    verb, *rest = words
    if verb not in ("up", "down", "ps", "logs", "build", "exec", "run", "restart", "stop"):
        return f"no test knows docker compose {verb}"
    named: list[str] = []
    while rest:
        word = rest.pop(0)
        if word in OPTIONS_WITH_VALUE:
            rest.pop(0)
        elif not word.startswith("-"):
            named.append(word)
            if verb in ("exec", "run"):
                break
    unknown = [name for name in named if name not in COMPOSE["services"]]
    if unknown:
        return f"compose has no service {unknown}"
    return wrong_with_darkroom(rest[1:]) if rest[:1] == ["darkroom"] else None


def wrong_with_inline(span: str) -> str | None:
    """What is wrong with a command that stands in a sentence: its name, its subcommand, its options."""
    words = span.split()
    if words[:1] == ["make"] and len(words) > 1:
        return wrong_with_make(words[1:])
    if words[:1] != ["darkroom"] or len(words) < 2 or not re.fullmatch(r"[a-z]+", words[1]):
        return None
    if words[1] not in COMMANDS:
        return f"no command darkroom {words[1]}"
    command = load(words[1])
    if isinstance(command, TyperGroup) and len(words) > 2 and words[2] in command.commands:
        command = command.commands[words[2]]
    inner = command.commands.values() if isinstance(command, TyperGroup) else [command]
    known = {opt for one in inner for parameter in one.params for opt in parameter.opts}
    unknown = [word for word in words[2:] if word.startswith("--") and word not in known | {"--help"}]
    return f"{span} has no {unknown}" if unknown else None
