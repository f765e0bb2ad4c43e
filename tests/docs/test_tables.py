"""Every table of a page is generated, has only words, or is compared with the code, here or in a test that it names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib import import_module

import pytest
import yaml

from flows.runs.flow_names import DELIVER, FAN_OUT, SYNC
from platform_api.http.problem_list import ERRORS
from storage.records.metrics.leaderboards import RANK
from storage.records.metrics.rollups import ROLL_UP
from storage.settings import Settings
from tests.docs.command_line import wrong_with_inline
from tests.docs.pages import ROOT, Table, code_spans, tables

HERE = "tests/docs/test_tables.py"
TABLES = list(tables())
PLACEHOLDERS = r"…|\bID\b|\bN\b|\bKIND\b|\bFLOW\b|; "
OF_OTHERS = {'role "mlflow" does not exist'}
"""Messages of programs that are not ours."""


def source() -> str:
    """All code, SQL and configuration, with strings that go over several lines in one piece."""
    packages = [
        path for name in ("storage", "flows", "platform_api", "deployments") for path in (ROOT / name).rglob("*")
    ]
    texts = [path.read_text() for path in [*packages, ROOT / "prefect.yaml"] if path.suffix in (".py", ".sql", ".yaml")]
    return re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts))


SOURCE = source()


def rows_name_tests(table: Table) -> None:
    """The last column names test files, or folders of tests."""
    for row in table.rows:
        named = code_spans(row[-1])
        assert named, row
        for name in named:
            place = ROOT / name
            assert name.startswith("tests/")
            files = [place] if place.is_file() else list(place.rglob("test_*.py"))
            assert any("def test_" in file.read_text() or "TestCase" in file.read_text() for file in files), name


def rows_name_places(table: Table) -> None:
    """The second column names folders or files that exist, and what follows does too."""
    for row in table.rows:
        named = [span for span in code_spans(" ".join(row[1:])) if "/" in span and not span.startswith("@")]
        assert named, row
        assert [name for name in named if not (ROOT / name).exists()] == []


def rows_quote_messages(table: Table) -> None:
    """What stands in backticks in the first column is text of ours, or one of its figures, alerts or parts."""
    for row in table.rows:
        for span in code_spans(row[0]):
            for fragment in re.split(PLACEHOLDERS, span):
                text = fragment.strip(" :.,")
                figure = text.removeprefix("darkroom_").removesuffix("_total")
                late = re.sub(rf"^late (?:{ROLL_UP}|{RANK})$", "late {", text)
                assert len(text) < 4 or text in OF_OTHERS or any(one in SOURCE for one in (text, figure, late)), span


def rows_name_things_that_are_there(table: Table) -> None:
    """Commands, dotted names and settings in the rows exist."""
    for row in table.rows:
        for span in code_spans(row[-1]):
            assert wrong_with_inline(span) is None, span
            if re.fullmatch(r"flows(?:\.\w+)+", span):
                module, _, name = span.rpartition(".")
                assert hasattr(import_module(module), name), span


def rows_are_the_relays_duties(table: Table) -> None:
    """Each duty stands once, and nothing else."""
    relay = "".join(file.read_text() for file in (ROOT / "flows" / "relay").glob("*.py"))
    duties = {*re.findall(r'Duty\(\s*"([a-z-]+)"', relay), SYNC, FAN_OUT, DELIVER}
    assert sorted(name for row in table.rows for name in code_spans(row[0])) == sorted(duties)


def rows_are_error_codes(table: Table) -> None:
    """Each code is one that the API returns, with the status that the table has."""
    statuses = {code: str(status) for status, codes in ERRORS.items() for code in codes}
    for row in table.rows:
        for code in code_spans(row[0]):
            assert statuses[code] in row[-1] or row[-1].startswith("the same"), code


def rows_are_key_files(table: Table) -> None:
    """Each file is one that the settings or the embedded platform name."""
    for row in table.rows:
        assert [name for name in code_spans(row[0]) if f'"{name}"' not in SOURCE] == []


def rows_are_secrets(table: Table) -> None:
    """Each name in capitals is of compose's example or a setting; each file is one that the code names."""
    example = (ROOT / "deployments" / "compose.env.example").read_text()
    for row in table.rows:
        for name in code_spans(" ".join(row)):
            if re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
                assert f"{name}=" in example or name.startswith("DARKROOM_"), name
            assert not re.fullmatch(r"[a-z-]+\.(?:key|auth)", name) or f'"{name}"' in SOURCE, name


CHECKS: Mapping[tuple[str, str], Callable[[Table], None]] = {
    ("SECURITY.md", "promise"): rows_name_tests,
    ("docs/architecture.md", "what dies"): rows_name_tests,
    ("docs/architecture.md", "add"): rows_name_places,
    ("docs/explanation/airflow-celery.md", "Airflow"): rows_name_things_that_are_there,
    ("docs/explanation/airflow-celery.md", "Celery"): rows_name_things_that_are_there,
    ("docs/how-to/blobs.md", "it says"): rows_quote_messages,
    ("docs/how-to/relay.md", "duty"): rows_are_the_relays_duties,
    ("docs/how-to/relay.md", "error (`code`)"): rows_are_error_codes,
    ("docs/how-to/runbook.md", "what you see"): rows_quote_messages,
    ("docs/how-to/security.md", "file"): rows_are_key_files,
    ("docs/how-to/security.md", "what"): rows_are_secrets,
    ("docs/reference/promises.md", "promise"): rows_name_tests,
}
"""What compares a table, by its page and the head of its first column."""


@pytest.mark.parametrize("table", TABLES, ids=lambda table: f"{table.page}:{table.head[0]}")
def test_a_table_says_what_holds_it(table: Table) -> None:
    says = "generate it, or put <!-- table: prose --> or <!-- table: checked by tests/... --> above it"
    assert table.comment == "table: prose" or table.comment.startswith("table: checked by "), says
    if table.comment != "table: prose":
        path = table.comment.removeprefix("table: checked by ")
        assert (ROOT / path).is_file(), path
        assert path != HERE or (table.page, table.head[0]) in CHECKS


@pytest.mark.parametrize(("page", "head"), CHECKS)
def test_a_table_is_what_the_code_says(page: str, head: str) -> None:
    [table] = [table for table in TABLES if (table.page, table.head[0]) == (page, head)]
    assert table.comment == f"table: checked by {HERE}"
    assert table.rows
    CHECKS[page, head](table)


def test_every_flow_of_prefect_yaml_has_a_purpose_in_the_reference() -> None:
    stanzas = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert [one["name"] for one in stanzas if len(one.get("description", "")) < 30] == []


def test_every_group_of_settings_says_what_it_is_for() -> None:
    groups = [kind for field in Settings.model_fields.values() if hasattr(kind := field.annotation, "model_fields")]
    assert len(groups) > 10
    assert [kind for kind in groups if not kind.__doc__] == []
