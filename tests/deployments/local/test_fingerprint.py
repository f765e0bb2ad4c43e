"""When `up` deploys again."""

from __future__ import annotations

from pathlib import Path

import pytest

from deployments.local.errors import PlatformError
from deployments.local.fingerprint import PREFECT_FILE, deploy_is_needed, fingerprint, fingerprint_file
from deployments.local.steps import platform_steps
from storage.settings import Settings


@pytest.fixture
def deployed(tmp_path: Path) -> Settings:
    """A data folder into which everything has been deployed."""
    settings = Settings(data_folder=tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "PG_VERSION").write_text("18\n")
    fingerprint_file(settings).write_text(fingerprint())
    return settings


def test_nothing_is_deployed_again_when_nothing_has_changed(deployed: Settings) -> None:
    assert not platform_steps(deployed).deploy_needed


def test_a_change_of_the_file_is_seen(deployed: Settings, tmp_path: Path) -> None:
    changed = tmp_path / "prefect.yaml"
    changed.write_text(PREFECT_FILE.read_text().replace("*/10 * * * *", "*/5 * * * *"))

    assert deploy_is_needed(deployed, changed)


def test_a_change_of_a_flows_module_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "fingerprinted_flow.py"
    module.write_text("steps = 1\n")
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments: [{name: x, entrypoint: fingerprinted_flow.x}]")
    monkeypatch.syspath_prepend(tmp_path)
    before = fingerprint(file)

    module.write_text("steps = 2\n")

    assert fingerprint(file) != before


def test_a_database_that_was_removed_is_deployed_into_again(deployed: Settings) -> None:
    (deployed.data_folder / "postgres" / "PG_VERSION").unlink()

    assert platform_steps(deployed).deploy_needed


def test_a_module_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prefect.yaml"
    file.write_text("deployments: [{name: x, entrypoint: flows.no_such_module.x}]")

    with pytest.raises(PlatformError, match=r"flows\.no_such_module"):
        fingerprint(file)
