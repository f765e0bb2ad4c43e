"""darkroom models, darkroom publish."""

from __future__ import annotations

import pytest

from deployments.commands.catalog import publication
from storage.postgres.catalog import catalog, models, versions
from storage.postgres.connection import Script
from storage.records.catalog.catalog import ModelVersion, VersionFields
from storage.records.catalog.vocabulary import Availability
from tests.deployments.line import Line
from tests.storage.makers import a_file, a_model


def drafted(line: Line, fine_tune: int, name: str = "not ready") -> ModelVersion:
    """A draft with a file beside a fine-tune."""

    def script() -> Script[ModelVersion]:
        trained = yield from catalog.version_by_id(fine_tune)
        model = yield from models.lock(trained.model_id)
        made = yield from versions.create(model, VersionFields(name=name, base_model="SD 1.5"))
        yield from catalog.add_files(made.id, [a_file("d" * 64)])
        return made

    return line.door.database.run(script)


def test_models_are_listed_with_what_nobody_else_sees(line: Line) -> None:
    assert "no models yet" in line("models").output
    draft = drafted(line, line.trained())
    [titles, row] = line("models").output.splitlines()
    assert titles.split() == ["model", "name", "status", "availability", "versions"]
    assert row.split()[0] == str(draft.model_id)
    assert {"Published", "Private"} <= set(row.split())
    assert str(draft.id) in row
    a_model(line.door.database, line.door.account_id, "another")
    [_, newest, more] = line("models", "-n", "1").output.splitlines()
    assert int(newest.split()[0]) > int(row.split()[0])
    assert more == "there are more: darkroom models -n 5"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publication, "PAGE", 1)
        assert [one.split()[0] for one in line("models").output.splitlines()[1:]] == [newest.split()[0], row.split()[0]]


def test_publishing_a_model_names_what_becomes_public_and_asks_first(line: Line) -> None:
    version = line.trained()
    draft = drafted(line, version)

    asked = line("publish", draft.model_id)
    assert asked.exit_code == 2
    assert f"hidden so far: version {draft.id} 'not ready' (Draft, Public)" in asked.output
    assert "add --yes" in asked.output
    assert line.door.database.run(catalog.model_by_id(draft.model_id)).availability is Availability.PRIVATE

    done = line("publish", draft.model_id, "--yes")
    assert done.exit_code == 0, done.output
    assert f"public now: version {draft.id} 'not ready'" in done.output
    assert f"public now: version {version} " in done.output
    again = line("publish", draft.model_id)
    assert (again.exit_code, "public now" in again.output) == (0, False)


def test_a_version_is_said_to_be_hidden_only_while_its_model_hides_it(line: Line) -> None:
    version = line.trained()
    draft = drafted(line, version)
    hidden = line("publish", draft.model_id, "--version", draft.id)
    assert f"its model hides it still (Published, Private): darkroom publish {draft.model_id}" in hidden.output
    assert line("publish", draft.model_id, "--yes").exit_code == 0
    other = drafted(line, version, "ready")
    shown = line("publish", draft.model_id, "--version", other.id)
    assert f"version {other.id} of model {draft.model_id} is public now" in shown.output
    assert "hides" not in shown.output
