"""Generated parts of pages, each from what the code has."""

from __future__ import annotations

from deployments import reference_tables
from deployments.reference_tables import AREA_FOLDERS, AREAS, ROOT, table
from storage.records.jobs.jobs import TRANSITIONS


def test_a_cell_may_hold_the_sign_that_ends_it() -> None:
    assert table(("a", "b"), iter([("x|y", "z")])) == "| a | b |\n|---|---|\n| x\\|y | z |"


def test_a_command_has_its_arguments_options_and_commands() -> None:
    commands = reference_tables.commands()

    assert "## darkroom train\n\n`darkroom train [PHOTOS] [CLASS_WORD]`" in commands
    assert "| `--yes`, `-y` |  | Start without asking. |" in commands
    assert "### darkroom jobs follow\n" in commands
    assert "`darkroom jobs COMMAND`" in commands


def test_every_move_of_a_job_is_a_row() -> None:
    assert len(reference_tables.job_states().splitlines()) == 2 + len(TRANSITIONS)
    assert "| submitted | running | flow |" in reference_tables.job_states()


def test_a_route_says_its_scope_and_the_order_is_always_the_same() -> None:
    routes = reference_tables.routes()

    assert "| `POST /api/v1/training-jobs` | Submit a fine-tune | `jobs:write` |" in routes
    assert "| `GET /health/live` | Whether the process responds | none |" in routes
    assert routes == reference_tables.routes()


def test_flows_have_their_schedules_and_errors_their_statuses() -> None:
    assert "| `reconcile` | light | `*/10 * * * *` |" in reference_tables.flows()
    assert "| 403 | `quota_exceeded` |" in reference_tables.errors()


def test_every_folder_of_an_area_is_in_the_table_of_areas() -> None:
    """A folder that is no area here is a name that two packages do not share: name it in OTHER_NAMES or AREAS."""
    areas = reference_tables.areas()
    for package in ("storage/records", "storage/postgres"):
        for folder in (ROOT / package).iterdir():
            if (folder / "__init__.py").is_file():
                assert folder.name in AREAS, folder
    assert len(areas.splitlines()) == 2 + len(AREAS)
    assert "| `relay` |" in areas
    assert all(f"`{package}`" in areas for package in AREA_FOLDERS)


def test_contracts_are_listed_by_name() -> None:
    assert "- Arrows point down\n" in reference_tables.contracts()
