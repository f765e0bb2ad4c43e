"""Every command that a page shows is right for what it calls, and is run by a test or says why not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs import api
from tests.docs.command_line import OF_THE_SYSTEM, wrong_with, wrong_with_compose
from tests.docs.pages import PAGES, ROOT, Command, blocks, code_spans, commands, name_of, prose
from tests.docs.run_by import BY_ROUTE, BY_WORDS, RunBy

SHOWN = list(commands())
VARIABLES = {"api": f"{api.HOST}/api/v1"}


def program(command: Command) -> tuple[str, ...]:
    """A command's words without the folder of its program."""
    return (command.words[0].removeprefix(".venv/bin/"), *command.words[1:])


def runs(command: Command) -> RunBy | None:
    """What runs a command, if something does."""
    typed = " ".join(program(command)) + " "
    if typed.startswith("curl "):
        [address] = [word for word in command.words if word.startswith((api.HOST, "$api"))]
        path = address.replace("$api", VARIABLES["api"]).removeprefix(api.HOST)
        return BY_ROUTE.get(max((known for known in BY_ROUTE if path.startswith(known)), key=len, default=""))
    return BY_WORDS.get(max((known for known in BY_WORDS if typed.startswith(f"{known} ")), key=len, default=""))


def test_pages_show_commands() -> None:
    assert len(SHOWN) > 100


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_is_right_for_what_it_calls(command: Command) -> None:
    wrong = api.wrong_with(command.words, VARIABLES) if command.words[0] == "curl" else wrong_with(command)
    assert wrong is None


@pytest.mark.parametrize("command", [one for one in SHOWN if program(one)[0] not in OF_THE_SYSTEM], ids=str)
def test_a_command_is_run_by_a_test_or_says_why_not(command: Command) -> None:
    found = runs(command)
    assert found or command.not_run, (
        "name its test in tests/docs/run_by.py, or put <!-- not run: WHY --> above its block"
    )


@pytest.mark.parametrize("words", [*BY_WORDS, *BY_ROUTE])
def test_the_test_that_runs_a_command_is_there_and_contains_it(words: str) -> None:
    run_by = {**BY_WORDS, **BY_ROUTE}[words]
    assert run_by.words in (ROOT / run_by.path).read_text(), run_by.path


def test_what_runs_a_command_is_named_for_commands_that_pages_show() -> None:
    used = {id(runs(command)) for command in SHOWN}
    assert [words for words, run_by in {**BY_WORDS, **BY_ROUTE}.items() if id(run_by) not in used] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_compose_commands_in_sentences_name_services_that_there_are(page: Path) -> None:
    for span in code_spans(prose(page)):
        if span.startswith("docker compose ") and not re.search(r"[…]", span):
            assert wrong_with_compose(span.split(" darkroom ")[0].split()[2:]) is None, span


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_says_its_language_or_is_a_drawing(page: Path) -> None:
    known = {"sh", "bash", "python", "ini", "", "{toctree}"}
    assert {block.language for block in blocks(page)} <= known
